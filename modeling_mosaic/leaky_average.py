"""The leaky average of keys (arXiv 2405.06394, equation 7), by recurrence and by chunks.

Shapes: B batch, H heads, T time, D head size. Time is cut into S groups of N chunks of Q steps.
"""

from typing import NamedTuple

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from transformers.utils.generic import maybe_autocast
from transformers.utils.import_utils import is_torchdynamo_exporting

CHUNK_SIZE = 16
# Chunks of a group. Longer rows have several, which keeps the elapsed times between chunks few.
GROUP_SIZE = 64


class ElapsedTimes(NamedTuple):
    """How many tokens lie between the steps of a row: all that leaky averages of any leak need to know.

    It is infinite where a step does not see the other: what comes later, and other sequences. Without
    padding and packed rows all chunks are alike, and one stands for all.
    """

    # `(Q, Q)`, or `(G, Q, Q)` for all G chunks of a batch: from each step of a chunk (last) to each one.
    within: torch.Tensor
    # For groups, and then for chunks, where there are several: from each step to the last one of its group or
    # chunk, and from the last step of each of them to the first one of each.
    carries: tuple[tuple[torch.Tensor, torch.Tensor], ...]
    # `(B, 1, T, 1)`: where the past fades, not at padding nor where a sequence starts; `None`: everywhere.
    fades: torch.Tensor | None


def elapsed_times(
    inputs_BTC: torch.Tensor, keep_BT: torch.Tensor | None = None, start_BT: torch.Tensor | None = None
) -> ElapsedTimes:
    """What `leaky_average` of as many steps takes as `elapsed`, the masks being the same.

    `inputs_BTC` gives time, device and precision: those of a model's inputs serve all of its layers.
    """
    groups, chunks, steps = _tiling(inputs_BTC.shape[1])
    is_uniform = keep_BT is None and start_BT is None
    dtype = full_precision(inputs_BTC) if is_uniform else torch.long
    step_SNQ = torch.arange(groups * chunks * steps, device=inputs_BTC.device, dtype=dtype)
    step_SNQ = step_SNQ.view(groups, chunks, steps)
    if is_uniform:
        # One chunk for all.
        chunk, ends = step_SNQ[0, 0], step_SNQ[0]
        elapsed, fades = _elapsed, None
    else:
        chunk, ends = step_SNQ, step_SNQ
        age_BT, sequence_BT, fades = _ages(inputs_BTC, keep_BT, start_BT, step_SNQ.numel())

        def elapsed(to, since):
            return _elapsed(to, since, age_BT, sequence_BT)

    carries = []
    if groups > 1:
        # One group for all, in the order of `_arrange`.
        step_ST = step_SNQ.flatten(1)
        group = step_SNQ[0].T.flatten() if is_uniform else step_ST
        carries.append((elapsed(group[..., -1:], group), elapsed(step_ST[:, 0], step_ST[:, -1])))
    if chunks > 1:
        carries.append((elapsed(chunk[..., -1:], chunk), elapsed(ends[..., 0], ends[..., -1])))
    return ElapsedTimes(elapsed(chunk, chunk), tuple(carries), fades)


def _ages(inputs_BTC, keep_BT, start_BT, total):
    """Tokens and starts of sequences up to each of `total` steps, and where the past fades."""
    fill = total - inputs_BTC.shape[1]
    fades_BT = torch.ones_like(start_BT) if keep_BT is None else keep_BT
    age_BT = F.pad(fades_BT, (0, fill)).cumsum(1, dtype=full_precision(inputs_BTC))
    sequence_BT = None
    if start_BT is not None:
        sequence_BT = F.pad(start_BT, (0, fill)).cumsum(1)
        fades_BT = fades_BT & ~start_BT
    return age_BT, sequence_BT, fades_BT[:, None, :, None]


def _elapsed(to, since, age_BT=None, sequence_BT=None):
    """Of the steps `(..., I)` and `(..., J)`: `(I, J)`, or with ages, `(G, I, J)` for each row and `...`."""
    to, since = to[..., :, None], since[..., None, :]
    is_hidden = since > to
    if sequence_BT is not None:
        is_hidden = is_hidden | (sequence_BT[:, to] != sequence_BT[:, since])
    elapsed = to - since if age_BT is None else age_BT[:, to] - age_BT[:, since]
    elapsed = elapsed.masked_fill(is_hidden, torch.inf)
    return elapsed if age_BT is None else elapsed.flatten(0, -3)


def _tiling(time):
    """Numbers of groups, of chunks in a group, and of steps in a chunk."""
    # One chunk for an exported graph, which serves any time: chunks would bind it to their number.
    # Branches and no `min`: to torch.compile, a symbolic time would make each size below an expression.
    if is_torchdynamo_exporting() or time <= CHUNK_SIZE:
        return 1, 1, time
    # Not `-(-time // chunk_size)`: inductor (torch 2.13) fails on strides of negative symbolic sizes.
    num_chunks = (time + CHUNK_SIZE - 1) // CHUNK_SIZE
    if num_chunks <= GROUP_SIZE:
        return 1, num_chunks, CHUNK_SIZE
    return (num_chunks + GROUP_SIZE - 1) // GROUP_SIZE, GROUP_SIZE, CHUNK_SIZE


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
    elapsed: ElapsedTimes | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Exponentially fading sum of past keys, one rate per head.

    kbar_t = key_t + exp(-leak) * kbar_{t-1}                        (arXiv 2405.06394, eq. 7)

    Each chunk of time first gets what earlier ones leave to it, added to its first key: the last average of
    each is one product with a row of decays, and what they leave another. The averages then are one product
    with a lower-triangular matrix of decays. The gradient goes the same way back.

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
        elapsed (`ElapsedTimes`, *optional*): what `elapsed_times` makes of this time and these masks, to
            share among layers.

    Returns:
        `tuple[torch.Tensor, torch.Tensor]`: averages `(batch, heads, time, head_dim)` and the last one
        `(batch, heads, head_dim)`, in float32 (float64 for float64 keys) whatever the keys' precision.

    Raises:
        ValueError: if `leak_per_token_H` does not have one entry per head.

    Costs O(T CHUNK_SIZE D) time and O(T) memory; equals `leaky_average_reference` within rounding. Has no
    second derivatives, but for a single step.
    """
    _check_leak(key_BHTD, leak_per_token_H)
    time = key_BHTD.shape[2]
    key, leak, state = _in_full_precision(key_BHTD, leak_per_token_H, state_BHD)
    state_BH1D = None if state is None else state[:, :, None]
    decay_H11 = torch.exp(-leak).view(-1, 1, 1) if time == 1 or state is not None else None
    if time == 1:
        average = leaky_step(key, decay_H11, state_BH1D, keep_BT, start_BT)
        return average, average[:, :, 0]
    if elapsed is None:
        elapsed = elapsed_times(key[:, 0], keep_BT, start_BT)
    if keep_BT is not None:
        key = key * keep_BT[:, None, :, None]
    if state is not None:
        masks = (None if mask is None else mask[:, :1] for mask in (keep_BT, start_BT))
        left_BH1D = leaky_step(torch.zeros_like(state_BH1D), decay_H11, state_BH1D, *masks)
        key = key + F.pad(left_BH1D, (0, 0, 0, time - 1))
    with torch.no_grad():
        decays = _decays(leak, elapsed.within, *(times for pair in elapsed.carries for times in pair))
    average = _LeakyAverage.apply(key, leak, elapsed.fades, *decays)
    return average, average[:, :, -1]


def _check_leak(key_BHTD, leak_per_token_H):
    if leak_per_token_H.shape != key_BHTD.shape[1:2]:
        raise ValueError(
            f"leak_per_token_H needs one entry for each of {key_BHTD.shape[1]} heads, "
            f"not shape {tuple(leak_per_token_H.shape)}"
        )


def full_precision(tensor: torch.Tensor) -> torch.dtype:
    """The precision of averages of tensors like this one: float32, or float64 for that."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def _in_full_precision(key_BHTD, *tensors):
    dtype = full_precision(key_BHTD)
    return [x if x is None or x.dtype == dtype else x.to(dtype) for x in (key_BHTD, *tensors)]


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
    """Without masks chunks are all alike, and one product of a head's decays serves the whole batch.

    Hence the order in memory, `(H, Q, N, S, B, D)`, and `(H, B, S, N, Q, D)` with masks: in both, the same
    views put steps, chunks or groups next to the last dimension of the decays. With g_t the gradient of key
    t, that of the leak is `-exp(-leak) sum_t g_t . kbar_{t-1}` over the steps that let the past fade.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(key_BHTD, leak_H, fades, within, *carries):
        with maybe_autocast(key_BHTD.device.type, enabled=False):
            series = _arrange(key_BHTD, is_uniform=fades is None)
            for to_end, between in zip(carries[::2], carries[1::2], strict=True):
                series = series.view(to_end.shape[0], to_end.shape[-1], -1)
                ends = torch.bmm(to_end, series)
                before = torch.bmm(between, ends.view(between.shape[0], between.shape[-1], -1))
                series[:, 0].add_(before.view(to_end.shape[0], -1))
            average = torch.bmm(within, series.view(within.shape[0], within.shape[-1], -1))
            return _restore(average, key_BHTD.shape, is_uniform=fades is None)

    @staticmethod
    def setup_context(ctx, inputs, average_BHTD):
        ctx.save_for_backward(average_BHTD, *inputs[1:])

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_BHTD):
        average_BHTD, leak_H, fades, within, *carries = ctx.saved_tensors
        with maybe_autocast(grad_BHTD.device.type, enabled=False):
            series = _arrange(grad_BHTD, is_uniform=fades is None)
            series = torch.bmm(within.mT, series.view(within.shape[0], within.shape[-1], -1))
            for to_end, between in zip(carries[-2::-2], carries[::-2], strict=True):
                series = series.view(to_end.shape[0], to_end.shape[-1], -1)
                before = series[:, 0].reshape(between.shape[0], between.shape[-1], -1)
                ends = torch.bmm(between.mT, before)
                series = torch.baddbmm(series, to_end.mT, ends.view(to_end.shape[0], 1, -1))
            grad_key_BHTD = _restore(series, grad_BHTD.shape, is_uniform=fades is None)
        # Shifted, not cut: inductor (torch 2.13) takes strides of T - 1 steps for constants.
        product_BHTD = grad_key_BHTD * F.pad(average_BHTD, (0, 0, 1, -1))
        if fades is not None:
            product_BHTD = product_BHTD * fades
        grad_leak_H = -torch.exp(-leak_H) * product_BHTD.sum((0, 2, 3))
        return grad_key_BHTD, grad_leak_H, None, None, *(None for _ in carries)


def _decays(leak_H, *elapsed):
    """What is left after elapsed times: `(H, to, since)`, or `(H G, to, since)` for `(G, to, since)`."""
    # No leak at all would forget nothing even after infinite time.
    rate_H = -leak_H.clamp(min=torch.finfo(leak_H.dtype).tiny)
    rate = rate_H.view(-1, *[1] * elapsed[0].ndim)
    # The smallest numbers would make products many times slower, and count for nothing.
    decays = (torch.threshold(torch.exp(rate * times), 1e-30, 0.0) for times in elapsed)
    return [decay if decay.ndim == 3 else decay.flatten(0, 1) for decay in decays]


def _arrange(series_BHTD, is_uniform):
    groups, chunks, steps = _tiling(series_BHTD.shape[2])
    if fill := groups * chunks * steps - series_BHTD.shape[2]:
        series_BHTD = F.pad(series_BHTD, (0, 0, 0, fill))
    if not is_uniform:
        return series_BHTD.transpose(0, 1).contiguous()
    batch, heads, _, dim = series_BHTD.shape
    series_BHSNQD = series_BHTD.view(batch, heads, groups, chunks, steps, dim)
    return series_BHSNQD.permute(1, 4, 3, 2, 0, 5).contiguous()


def _restore(series, shape_BHTD, is_uniform):
    """Back to `(B, H, T, D)`, where heads stand side by side in memory, as linear layers have them."""
    batch, heads, time, dim = shape_BHTD
    groups, chunks, steps = _tiling(time)
    if is_uniform:
        series_BSNQHD = series.view(heads, steps, chunks, groups, batch, dim).permute(4, 3, 2, 1, 0, 5)
        series_BTHD = series_BSNQHD.reshape(batch, -1, heads, dim)
    else:
        series_BTHD = series.view(heads, batch, -1, dim).permute(1, 2, 0, 3).contiguous()
    return (series_BTHD if series_BTHD.shape[1] == time else series_BTHD[:, :time]).transpose(1, 2)
