"""The leaky average of keys (arXiv 2405.06394, equation 7), by recurrence, by chunks, or by Triton's kernel.

Shapes: B batch, H heads, T time, D head size; N chunks of Q steps each.
"""

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from transformers.utils.generic import maybe_autocast
from transformers.utils.import_utils import is_torchdynamo_exporting

try:
    from .leaky_average_triton import leaky_average_triton
except ImportError:
    leaky_average_triton = None

CHUNK_SIZE = 16


def leaky_average_reference(
    key_BHTD: torch.Tensor,
    leak_per_token_H: torch.Tensor,
    state_BHD: torch.Tensor | None = None,
    *,
    keep_BT: torch.Tensor | None = None,
    start_BT: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The leaky average as the recurrence that defines it, one step at a time. See `leaky_average`."""
    _check_leak(key_BHTD, leak_per_token_H)
    key, leak, state = _in_full_precision(key_BHTD, leak_per_token_H, state_BHD)
    decay_H11, state_BH1D = torch.exp(-leak).view(-1, 1, 1), None if state is None else state[:, :, None]
    averages = []
    for t, key_BH1D in enumerate(key.split(1, 2)):
        masks = (None if mask is None else mask[:, t, None] for mask in (keep_BT, start_BT))
        state_BH1D = leaky_step(key_BH1D, decay_H11, state_BH1D, *masks)
        averages.append(state_BH1D)
    return torch.cat(averages, 2), state_BH1D[:, :, 0]


def leaky_average(
    key_BHTD: torch.Tensor,
    leak_per_token_H: torch.Tensor,
    state_BHD: torch.Tensor | None = None,
    *,
    keep_BT: torch.Tensor | None = None,
    start_BT: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Exponentially fading sum of past keys, one rate per head.

    kbar_t = key_t + exp(-leak) * kbar_{t-1}                        (arXiv 2405.06394, eq. 7)

    On a CUDA device this is the kernel of `leaky_average_triton`, where Triton is installed. Elsewhere the
    sum inside a chunk is one product with a lower-triangular matrix of decays, and the last averages of all
    chunks obey the same recurrence with a faster decay. The gradient runs the same recurrence backwards.

    Args:
        key_BHTD (`torch.Tensor` of shape `(batch, heads, time, head_dim)`): keys before averaging; at least
            one step.
        leak_per_token_H (`torch.Tensor` of shape `(heads,)`): decay in nats per token, >= 0.
        state_BHD (`torch.Tensor`, *optional*): the average after the token before `key_BHTD`; zeros if
            `None`.
        keep_BT (`torch.BoolTensor`, *optional*): False marks padding, which adds nothing and lets nothing
            fade.
        start_BT (`torch.BoolTensor`, *optional*): True marks the first token of a sequence, before which all
            is forgotten.

    Returns:
        `tuple[torch.Tensor, torch.Tensor]`: averages `(batch, heads, time, head_dim)` and the last one
        `(batch, heads, head_dim)`, in float32 (float64 for float64 keys) whatever the keys' precision.

    Raises:
        ValueError: if `leak_per_token_H` does not have one entry per head.

    Costs O(T CHUNK_SIZE D) time and O(T) memory; equals `leaky_average_reference` within rounding. Has no
    second derivatives, but for a single step.
    """
    _check_leak(key_BHTD, leak_per_token_H)
    is_one_step = key_BHTD.shape[2] == 1
    has_kernel = leaky_average_triton is not None and key_BHTD.is_cuda and key_BHTD.dtype != torch.float64
    if has_kernel and not is_one_step:
        # It reads half precision as it is.
        return leaky_average_triton(key_BHTD, leak_per_token_H, state_BHD, keep_BT=keep_BT, start_BT=start_BT)
    key, leak, state = _in_full_precision(key_BHTD, leak_per_token_H, state_BHD)
    if is_one_step:
        state_BH1D = None if state is None else state[:, :, None]
        average = leaky_step(key, torch.exp(-leak).view(-1, 1, 1), state_BH1D, keep_BT, start_BT)
        return average, average[:, :, 0]
    average = _LeakyAverage.apply(key, leak, state, keep_BT, start_BT)
    return average, average[:, :, -1]


def _check_leak(key_BHTD, leak_per_token_H):
    if leak_per_token_H.shape != key_BHTD.shape[1:2]:
        raise ValueError(
            f"leak_per_token_H needs one entry for each of {key_BHTD.shape[1]} heads, "
            f"not shape {tuple(leak_per_token_H.shape)}"
        )


def _in_full_precision(key_BHTD, leak_per_token_H, state_BHD):
    dtype = torch.promote_types(key_BHTD.dtype, torch.float32)
    state_BHD = None if state_BHD is None else state_BHD.to(dtype)
    return key_BHTD.to(dtype), leak_per_token_H.to(dtype), state_BHD


def leaky_step(
    key_BH1D: torch.Tensor,
    decay_H11: torch.Tensor,
    state_BH1D: torch.Tensor | None,
    keep_B1: torch.Tensor | None = None,
    start_B1: torch.Tensor | None = None,
) -> torch.Tensor:
    """`leaky_average` of one more token, in full precision: `key + decay * state`."""
    if state_BH1D is None:
        state_BH1D = torch.zeros_like(key_BH1D)
    if start_B1 is not None:
        state_BH1D = state_BH1D.masked_fill(start_B1[:, None, :, None], 0)
    average_BH1D = torch.addcmul(key_BH1D, decay_H11, state_BH1D)
    return (
        average_BH1D if keep_B1 is None else torch.where(keep_B1[:, None, :, None], average_BH1D, state_BH1D)
    )


class _LeakyAverage(torch.autograd.Function):
    """Chunks forwards in time for the averages, and backwards for the gradient of the keys.

    With g_t the gradient of key t, that of the leak is `-exp(-leak) sum_t g_t . kbar_{t-1}` over the steps
    that let the past fade. Automatic differentiation would keep and take apart the matrices of decays.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(key_BHTD, leak_H, state_BHD, keep_BT, start_BT):
        if keep_BT is not None:
            key_BHTD = key_BHTD * keep_BT[:, None, :, None]
        return _average_in_chunks(key_BHTD, leak_H, state_BHD, keep_BT, start_BT)

    @staticmethod
    def setup_context(ctx, inputs, average_BHTD):
        ctx.save_for_backward(average_BHTD, *inputs[1:])

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_BHTD):
        average_BHTD, leak_H, state_BHD, keep_BT, start_BT = ctx.saved_tensors
        # What step t passes on to step t - 1 has faded at step t.
        keep_after_BT, start_after_BT = (
            None if mask is None else mask.flip(1).roll(1, 1) for mask in (keep_BT, start_BT)
        )
        reversed_BHTD = _average_in_chunks(grad_BHTD.flip(2), leak_H, None, keep_after_BT, start_after_BT)
        total_BHTD = reversed_BHTD.flip(2)
        grad_key_BHTD = total_BHTD if keep_BT is None else total_BHTD * keep_BT[:, None, :, None]
        fading_BHTD = grad_key_BHTD
        if start_BT is not None:
            fading_BHTD = grad_key_BHTD.masked_fill(start_BT[:, None, :, None], 0)
        # Shifted, not cut: inductor (torch 2.13) takes strides of T - 1 steps for constants.
        grad_decay_H = (fading_BHTD * F.pad(average_BHTD, (0, 0, 1, -1))).sum((0, 2, 3))
        decay_H = torch.exp(-leak_H)
        grad_state_BHD = None
        if state_BHD is not None:
            grad_decay_H = grad_decay_H + (fading_BHTD[:, :, 0] * state_BHD).sum((0, 2))
            first_BH1D = total_BHTD[:, :, :1]
            masks = [None if mask is None else mask[:, :1] for mask in (keep_BT, start_BT)]
            zeros_BH1D = torch.zeros_like(first_BH1D)
            grad_state_BHD = leaky_step(zeros_BH1D, decay_H.view(-1, 1, 1), first_BH1D, *masks)[:, :, 0]
        return grad_key_BHTD, -decay_H * grad_decay_H, grad_state_BHD, None, None


def _average_in_chunks(key_BHTD, leak_H, state_BHD, keep_BT, start_BT):
    with maybe_autocast(key_BHTD.device.type, enabled=False):
        age_BT = None if keep_BT is None else keep_BT.to(key_BHTD.dtype)
        return _carry_over(key_BHTD, torch.exp(-leak_H), state_BHD, age_BT, start_BT, CHUNK_SIZE)


def _carry_over(key_BHTD, decay_H, state_BHD, age_BT, start_BT, chunk_size):
    """`age_BT` counts the tokens by which the past ages at each step (1 if `None`)."""
    batch, heads, time, dim = key_BHTD.shape
    # One chunk for an exported graph, which serves any time: chunks would bind it to their number.
    # A branch and no `min`: to torch.compile, a symbolic time would make each size below an expression.
    is_single = is_torchdynamo_exporting() or time <= chunk_size
    # Not `-(-time // chunk_size)`: inductor (torch 2.13) fails on strides of negative symbolic sizes.
    chunk, num_chunks = (time, 1) if is_single else (chunk_size, (time + chunk_size - 1) // chunk_size)
    fill = num_chunks * chunk - time
    if fill:
        key_BHTD = F.pad(key_BHTD, (0, 0, 0, fill))
    if age_BT is None:
        age_bnQ = torch.arange(1, chunk + 1, device=key_BHTD.device, dtype=key_BHTD.dtype)[None, None]
    else:
        age_bnQ = F.pad(age_BT, (0, fill)).unflatten(1, (num_chunks, chunk)).cumsum(-1)
    sequence_bnQ = None
    if start_BT is not None:
        sequence_bnQ = F.pad(start_BT.long(), (0, fill)).unflatten(1, (num_chunks, chunk)).cumsum(-1)

    key_BHNQD = key_BHTD.unflatten(2, (num_chunks, chunk))
    decay_bHnQQ = _decay_matrix(decay_H, age_bnQ, sequence_bnQ)
    if torch.compiler.is_compiling():
        # Inductor (torch 2.13) takes the strides of a batch between heads for constants.
        average_BHNQD = torch.matmul(decay_bHnQQ, key_BHNQD)
    else:
        # Heads first in memory: persistent memories then take the batch for a part of the time, uncopied.
        average_BHNQD = torch.matmul(decay_bHnQQ.transpose(0, 1), key_BHNQD.transpose(0, 1)).transpose(0, 1)
    before_BHND = None if state_BHD is None else state_BHD[:, :, None]
    if num_chunks > 1:
        # Of all chunks, the last included: inductor (torch 2.13) fails on symbolic sizes like num_chunks - 1.
        end_age = age_bnQ[..., -1].expand(-1, num_chunks)
        end_start = None if sequence_bnQ is None else sequence_bnQ[..., -1] > 0
        # Larger chunks of these: there are few, and each level has its cost.
        ends_BHND = _carry_over(
            average_BHNQD[..., -1, :], decay_H, state_BHD, end_age, end_start, 4 * chunk_size
        )
        before_BHND = ends_BHND.roll(1, 2)
        before_BHND[:, :, 0] = 0 if state_BHD is None else state_BHD
    if before_BHND is not None:
        fade_bHnQ = decay_H[:, None, None] ** age_bnQ[:, None]
        if sequence_bnQ is not None:
            fade_bHnQ = fade_bHnQ * (sequence_bnQ == 0)[:, None]
        average_BHNQD = average_BHNQD.addcmul_(fade_bHnQ[..., None], before_BHND[..., None, :])
    return average_BHNQD.flatten(2, 3)[:, :, :time]


def _decay_matrix(decay_H, age_bnQ, sequence_bnQ):
    """What is left of step p of a chunk at its step q, lower triangular: `(b, heads, n, q, p)`."""
    # Clamped first, as the power would overflow above the diagonal.
    elapsed_bnQQ = (age_bnQ[..., :, None] - age_bnQ[..., None, :]).clamp(min=0)
    decay_bHnQQ = (decay_H[:, None, None, None] ** elapsed_bnQQ[:, None]).tril()
    if sequence_bnQ is not None:
        decay_bHnQQ = decay_bHnQQ * (sequence_bnQ[..., :, None] == sequence_bnQ[..., None, :])[:, None]
    return decay_bHnQQ
