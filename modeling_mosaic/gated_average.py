"""The gated leaky average of keys (arXiv 2507.03285, equation 8), by recurrence, by chunks or by Triton's
kernel.

kbar_t = exp(a_t) k_t + exp(-d_t) kbar_{t-1}: the log gain a_t and the leak d_t >= 0, in nats, differ from
token to token. Gains have no bound, so that an average is kept as `average * exp(log_scale)`, with the
running maximum `log_scale_t = max(log_scale_{t-1} - d_t, a_t)`. Both factors of

    average_t = exp(a_t - log_scale_t) k_t + exp(log_scale_{t-1} - d_t - log_scale_t) average_{t-1}

are then at most 1. Norm follows, and takes the scale away. Any other scale would give the same averages but
for rounding, which is why it counts as a constant where gradients are computed.

Shapes: B batch, H heads, T time, D head size; N chunks of Q steps each.
"""

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from transformers.utils.generic import maybe_autocast
from transformers.utils.import_utils import is_torchdynamo_exporting

try:
    from .gated_average_triton import fading_sum_triton
except ImportError:
    fading_sum_triton = None

CHUNK_SIZE = 16
# The log scale of an average of nothing.
EMPTY = -1e30
# So many nats leave nothing of the past, in float32; larger ones would cost the sums of leaks their
# precision.
FORGOTTEN = 104.0
# What a border between sequences adds to a sum of leaks: more than gains differ by.
BORDER = 1e6

State = tuple[torch.Tensor, torch.Tensor]


def gated_average_reference(
    key_BHTD: torch.Tensor,
    log_gain_BHT: torch.Tensor,
    leak_BHT: torch.Tensor,
    state: State | None = None,
    *,
    keep_BT: torch.Tensor | None = None,
    start_BT: torch.Tensor | None = None,
) -> State:
    """The gated average as the recurrence that defines it, one step at a time. See `gated_average`."""
    steps = []
    for t, key_BH1D in enumerate(key_BHTD.split(1, 2)):
        masks = {
            name: None if mask is None else mask[:, t : t + 1]
            for name, mask in (("keep_BT", keep_BT), ("start_BT", start_BT))
        }
        log_gain_BH1, leak_BH1 = log_gain_BHT[:, :, t : t + 1], leak_BHT[:, :, t : t + 1]
        average_BH1D, log_scale_BH1 = gated_average(key_BH1D, log_gain_BH1, leak_BH1, state, **masks)
        state = average_BH1D[:, :, 0], log_scale_BH1[:, :, 0]
        steps.append(state)
    average_BHTD, log_scale_BHT = (torch.stack(parts, 2) for parts in zip(*steps, strict=True))
    return average_BHTD, log_scale_BHT


def gated_average(
    key_BHTD: torch.Tensor,
    log_gain_BHT: torch.Tensor,
    leak_BHT: torch.Tensor,
    state: State | None = None,
    *,
    keep_BT: torch.Tensor | None = None,
    start_BT: torch.Tensor | None = None,
) -> State:
    """Fading sum of past keys, each with its own gain, that fades by another factor at each token.

    On a CUDA device this is the kernel of `gated_average_triton`, where Triton is installed. Elsewhere the
    sum inside a chunk is one product with a lower-triangular matrix of decays, and the last sums of all
    chunks obey the same recurrence. The gradient runs the same recurrence backwards.

    Args:
        key_BHTD (`torch.Tensor` of shape `(batch, heads, time, head_dim)`): keys before averaging; at least
            one step.
        log_gain_BHT (`torch.Tensor` of shape `(batch, heads, time)`): log of what each key counts, in nats;
            any size.
        leak_BHT (`torch.Tensor` of shape `(batch, heads, time)`): decay at each token in nats, >= 0.
        state (`tuple[torch.Tensor, torch.Tensor]`, *optional*): average `(batch, heads, head_dim)` and log
            scale `(batch, heads)` after the token before `key_BHTD`; nothing if `None`.
        keep_BT (`torch.BoolTensor`, *optional*): False marks padding, which adds nothing and lets nothing
            fade.
        start_BT (`torch.BoolTensor`, *optional*): True marks the first token of a sequence, before which all
            is forgotten.

    Returns:
        `tuple[torch.Tensor, torch.Tensor]`: averages `(batch, heads, time, head_dim)` and log scales `(batch,
        heads, time)`, of which those of the last step are the state to continue from; in float32 (float64
        for float64 keys) whatever the keys' precision. The average of equation 8 is
        `average * exp(log_scale)`, and its gradient is right if log scales are taken for constants.

    Raises:
        ValueError: if gains and leaks do not have one entry per head and step.

    Costs O(T CHUNK_SIZE D) time and O(T) memory; equals `gated_average_reference` within rounding. Has no
    second derivatives, but for a single step.
    """
    for name, rates in (("log_gain_BHT", log_gain_BHT), ("leak_BHT", leak_BHT)):
        if rates.shape != key_BHTD.shape[:3]:
            raise ValueError(
                f"{name} must have shape {tuple(key_BHTD.shape[:3])} as the keys, not {tuple(rates.shape)}"
            )
    dtype = torch.promote_types(key_BHTD.dtype, torch.float32)
    key_BHTD, log_gain_BHT, leak_BHT = (x.to(dtype) for x in (key_BHTD, log_gain_BHT, leak_BHT))
    average_BHD, log_scale_BH = (None, None) if state is None else (part.to(dtype) for part in state)
    if keep_BT is not None:
        log_gain_BHT = log_gain_BHT.masked_fill(~keep_BT[:, None], -torch.inf)
        leak_BHT = leak_BHT.masked_fill(~keep_BT[:, None], 0)
    if key_BHTD.shape[2] == 1:
        return _gated_step(key_BHTD, log_gain_BHT, leak_BHT, average_BHD, log_scale_BH, start_BT)
    with maybe_autocast(key_BHTD.device.type, enabled=False):
        log_scale_BHT = _running_maximum(log_gain_BHT, leak_BHT, log_scale_BH, start_BT)
        before_BHT = _shift_scale(log_scale_BHT, log_scale_BH)
        gained_BHTD = torch.exp(log_gain_BHT - log_scale_BHT)[..., None] * key_BHTD
        fade_BHT = (log_scale_BHT - before_BHT + leak_BHT).clamp(max=FORGOTTEN)
        if start_BT is not None:
            fade_BHT = fade_BHT.masked_fill(start_BT[:, None], FORGOTTEN)
        return _FadingSum.apply(gained_BHTD, fade_BHT, average_BHD), log_scale_BHT


def _gated_step(key_BH1D, log_gain_BH1, leak_BH1, average_BHD, log_scale_BH, start_B1):
    """`gated_average` of one more token, in full precision."""
    if average_BHD is None:
        log_scale_BH1 = log_gain_BH1.detach().clamp(min=EMPTY)
        return torch.exp(log_gain_BH1 - log_scale_BH1)[..., None] * key_BH1D, log_scale_BH1
    past_BH1, average_BH1D = log_scale_BH[..., None] - leak_BH1, average_BHD[:, :, None]
    if start_B1 is not None:
        past_BH1 = past_BH1.masked_fill(start_B1[:, None], EMPTY)
        average_BH1D = average_BH1D.masked_fill(start_B1[:, None, :, None], 0)
    log_scale_BH1 = torch.maximum(past_BH1, log_gain_BH1).detach()
    kept_BH1D = torch.exp(past_BH1 - log_scale_BH1)[..., None] * average_BH1D
    return kept_BH1D.addcmul(torch.exp(log_gain_BH1 - log_scale_BH1)[..., None], key_BH1D), log_scale_BH1


@torch.no_grad()
def _running_maximum(log_gain_BHT, leak_BHT, log_scale_BH, start_BT):
    """`log_scale_t = max(log_scale_{t-1} - d_t, a_t)`, as a running maximum of `a_t + d_1 + ... + d_t`.

    In float64 where there is one, since the sum of leaks grows with the text.
    """
    exact = torch.float32 if log_gain_BHT.device.type == "mps" else torch.float64
    leak_BHT = leak_BHT.to(exact)
    if start_BT is not None:
        leak_BHT = leak_BHT + BORDER * start_BT[:, None]
    faded_BHT = leak_BHT.cumsum(-1)
    highest_BHT = _highest_so_far(log_gain_BHT + faded_BHT)
    if log_scale_BH is not None:
        highest_BHT = torch.maximum(highest_BHT, log_scale_BH[..., None].to(exact))
    return (highest_BHT - faded_BHT).clamp(min=EMPTY).to(log_gain_BHT.dtype)


def _highest_so_far(values_BHT):
    if not is_torchdynamo_exporting():
        return values_BHT.cummax(-1).values
    # ONNX has no running maximum.
    time = values_BHT.shape[-1]
    later_TT = torch.ones(time, time, dtype=torch.bool, device=values_BHT.device).triu(1)
    return values_BHT[..., None, :].masked_fill(later_TT, -torch.inf).amax(-1)


def _shift_scale(log_scale_BHT, log_scale_BH):
    """Log scales one step before."""
    shifted_BHT = log_scale_BHT.roll(1, -1)
    shifted_BHT[..., 0] = EMPTY if log_scale_BH is None else log_scale_BH
    return shifted_BHT


class _FadingSum(torch.autograd.Function):
    """`sum_t = x_t + exp(-fade_t) sum_{t-1}`, by chunks forwards in time, and backwards for the gradient.

    With g_t the gradient of x_t, that of fade_t is `-exp(-fade_t) g_t . sum_{t-1}`. Automatic differentiation
    would keep and take apart the matrices of decays.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x_BHTD, fade_BHT, state_BHD):
        return _fading_sum(x_BHTD, fade_BHT, state_BHD)

    @staticmethod
    def setup_context(ctx, inputs, sum_BHTD):
        ctx.save_for_backward(sum_BHTD, *inputs[1:])

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_BHTD):
        sum_BHTD, fade_BHT, state_BHD = ctx.saved_tensors
        grad_BHTD = _fading_sum(grad_BHTD, fade_BHT, None, backwards=True)
        decay_BHT = torch.exp(-fade_BHT)
        before_BHTD = F.pad(sum_BHTD, (0, 0, 1, -1))
        grad_state_BHD = None
        if state_BHD is not None:
            before_BHTD[:, :, 0] = state_BHD
            grad_state_BHD = decay_BHT[:, :, 0, None] * grad_BHTD[:, :, 0]
        return grad_BHTD, -decay_BHT * (grad_BHTD * before_BHTD).sum(-1), grad_state_BHD


def _fading_sum(x_BHTD, fade_BHT, state_BHD, backwards=False):
    if fading_sum_triton is not None and x_BHTD.is_cuda and x_BHTD.dtype != torch.float64:
        return fading_sum_triton(x_BHTD, fade_BHT, state_BHD, backwards)
    if not backwards:
        return _sum_in_chunks(x_BHTD, fade_BHT, state_BHD, CHUNK_SIZE)
    # What step t passes on to step t - 1 has faded at step t.
    return _sum_in_chunks(x_BHTD.flip(2), fade_BHT.flip(2).roll(1, 2), None, CHUNK_SIZE).flip(2)


def _sum_in_chunks(x_BHTD, fade_BHT, state_BHD, chunk_size):
    time = x_BHTD.shape[2]
    # As in `leaky_average.py`: one chunk for an exported graph, and sizes that inductor (torch 2.13) takes.
    is_single = is_torchdynamo_exporting() or time <= chunk_size
    chunk, num_chunks = (time, 1) if is_single else (chunk_size, (time + chunk_size - 1) // chunk_size)
    fill = num_chunks * chunk - time
    if fill:
        x_BHTD, fade_BHT = F.pad(x_BHTD, (0, 0, 0, fill)), F.pad(fade_BHT, (0, fill))
    # A chunk of any length may have a large sum.
    exact = torch.float64 if is_torchdynamo_exporting() else fade_BHT.dtype
    faded_BHNQ = fade_BHT.unflatten(2, (num_chunks, chunk)).cumsum(-1, dtype=exact)
    later_QQ = torch.ones(chunk, chunk, dtype=torch.bool, device=x_BHTD.device).triu(1)
    # Masked first, as the exponential would overflow above the diagonal.
    log_decay_BHNQQ = (faded_BHNQ[..., None, :] - faded_BHNQ[..., :, None]).masked_fill(later_QQ, -torch.inf)
    log_decay_BHNQQ, faded_BHNQ = log_decay_BHNQQ.to(x_BHTD.dtype), faded_BHNQ.to(x_BHTD.dtype)
    sum_BHNQD = torch.matmul(torch.exp(log_decay_BHNQQ), x_BHTD.unflatten(2, (num_chunks, chunk)))
    before_BHND = None if state_BHD is None else state_BHD[:, :, None]
    if num_chunks > 1:
        # Larger chunks of these: there are few, and each level has its cost.
        ends_BHND = _sum_in_chunks(sum_BHNQD[..., -1, :], faded_BHNQ[..., -1], state_BHD, 4 * chunk_size)
        before_BHND = ends_BHND.roll(1, 2)
        before_BHND[:, :, 0] = 0 if state_BHD is None else state_BHD
    if before_BHND is not None:
        sum_BHNQD = sum_BHNQD.addcmul_(torch.exp(-faded_BHNQ)[..., None], before_BHND[..., None, :])
    return sum_BHNQD.flatten(2, 3)[:, :, :time]
