"""The leaky average of keys (arXiv 2405.06394, equation 7), by recurrence and by chunks.

Shapes: B batch, H heads, T time, D head size; N chunks of Q steps each.
"""

import torch
from torch.nn import functional as F

CHUNK_SIZE = 64


def leaky_average_reference(
    key_BHTD: torch.Tensor,
    leak_per_token_H: torch.Tensor,
    state_BHD: torch.Tensor | None = None,
    *,
    keep_BT: torch.Tensor | None = None,
    start_BT: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The leaky average as the recurrence that defines it, one step at a time. See `leaky_average`."""
    key, leak, state = _in_full_precision(key_BHTD, leak_per_token_H, state_BHD)
    decay = torch.exp(-leak)[:, None]
    averages = []
    for t, key_BHD in enumerate(key.unbind(2)):
        if start_BT is not None:
            state = state.masked_fill(start_BT[:, t, None, None], 0)
        step = key_BHD + decay * state
        state = step if keep_BT is None else torch.where(keep_BT[:, t, None, None], step, state)
        averages.append(state)
    return torch.stack(averages, 2), state


def leaky_average(
    key_BHTD: torch.Tensor,
    leak_per_token_H: torch.Tensor,
    state_BHD: torch.Tensor | None = None,
    *,
    keep_BT: torch.Tensor | None = None,
    start_BT: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Exponentially fading sum of past keys, one rate per head, computed in chunks of `CHUNK_SIZE` steps.

    kbar_t = key_t + exp(-leak) * kbar_{t-1}                        (arXiv 2405.06394, eq. 7)

    Inside a chunk the sum is one product with a lower-triangular matrix of decays. The last averages of all
    chunks obey the same recurrence with a faster decay, so that the function calls itself to carry them from
    chunk to chunk.

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

    Costs O(T CHUNK_SIZE D) time and O(T) memory; equals `leaky_average_reference` within rounding.
    """
    key, leak, state = _in_full_precision(key_BHTD, leak_per_token_H, state_BHD)
    if key.shape[2] == 1:
        return leaky_average_reference(key, leak, state, keep_BT=keep_BT, start_BT=start_BT)
    age_BT = None
    if keep_BT is not None:
        key = key * keep_BT[:, None, :, None]
        age_BT = keep_BT.to(key.dtype)
    with torch.autocast(key.device.type, enabled=False):
        average = _average_in_chunks(key, leak, state, age_BT, start_BT)
    return average, average[:, :, -1]


def _in_full_precision(key_BHTD, leak_per_token_H, state_BHD):
    if leak_per_token_H.shape != key_BHTD.shape[1:2]:
        raise ValueError(
            f"leak_per_token_H needs one entry for each of {key_BHTD.shape[1]} heads, "
            f"not shape {tuple(leak_per_token_H.shape)}"
        )
    dtype = torch.promote_types(key_BHTD.dtype, torch.float32)
    if state_BHD is None:
        state_BHD = key_BHTD.new_zeros(key_BHTD.shape[0], key_BHTD.shape[1], key_BHTD.shape[3])
    return key_BHTD.to(dtype), leak_per_token_H.to(dtype), state_BHD.to(dtype)


def _average_in_chunks(key_BHTD, leak_H, state_BHD, age_BT, start_BT):
    """`age_BT` counts the tokens by which the past ages at each step (1 if `None`)."""
    batch, heads, time, dim = key_BHTD.shape
    # A branch and no `min`: to torch.compile, a symbolic time would make each size below an expression.
    chunk, num_chunks = (time, 1) if time <= CHUNK_SIZE else (CHUNK_SIZE, -(-time // CHUNK_SIZE))
    fill = num_chunks * chunk - time
    key_BHNQD = F.pad(key_BHTD, (0, 0, 0, fill)).view(batch, heads, num_chunks, chunk, dim)
    if age_BT is None:
        age_bnQ = key_BHTD.new_ones(1, 1, chunk)
    else:
        age_bnQ = F.pad(age_BT, (0, fill)).view(-1, num_chunks, chunk)
    age_bnQ = age_bnQ.cumsum(-1)
    sequence_bnQ = None
    if start_BT is not None:
        sequence_bnQ = F.pad(start_BT.long(), (0, fill)).view(-1, num_chunks, chunk).cumsum(-1)

    inside_BHNQD = _apply_decay(key_BHNQD, leak_H, age_bnQ, sequence_bnQ)
    if num_chunks == 1:
        before_BHND = state_BHD[:, :, None]
    else:
        # Of all chunks, the last included: inductor (torch 2.13) fails on symbolic sizes like num_chunks - 1.
        ends_BHND = inside_BHNQD[:, :, :, -1]
        end_age = age_bnQ[..., -1].expand(-1, num_chunks)
        end_start = None if sequence_bnQ is None else sequence_bnQ[..., -1] > 0
        carried_BHND = _average_in_chunks(ends_BHND, leak_H, state_BHD, end_age, end_start)[:, :, :-1]
        before_BHND = torch.cat([state_BHD[:, :, None], carried_BHND], 2)

    fade_bHnQ = torch.exp(-leak_H)[:, None, None] ** age_bnQ[:, None]
    if sequence_bnQ is not None:
        fade_bHnQ = fade_bHnQ * (sequence_bnQ == 0)[:, None]
    average = torch.addcmul(inside_BHNQD, fade_bHnQ[..., None], before_BHND[..., None, :])
    return average.reshape(batch, heads, num_chunks * chunk, dim)[:, :, :time]


def _apply_decay(key_BHNQD, leak_H, age_bnQ, sequence_bnQ):
    """The average within each chunk, as if nothing came before it."""
    # Clamped first: above the diagonal the power would overflow, and 0 * inf is NaN in the gradient.
    elapsed_bnQQ = (age_bnQ[..., :, None] - age_bnQ[..., None, :]).clamp(min=0)
    decay_bHnQQ = (torch.exp(-leak_H)[:, None, None, None] ** elapsed_bnQQ[:, None]).tril()
    if sequence_bnQ is not None:
        decay_bHnQQ = decay_bHnQQ * (sequence_bnQ[..., :, None] == sequence_bnQ[..., None, :])[:, None]
    if decay_bHnQQ.shape[0] == decay_bHnQQ.shape[2] == 1:
        return torch.einsum("hqp,bhnpd->bhnqd", decay_bHnQQ[0, :, 0], key_BHNQD)
    return torch.matmul(decay_bHnQQ, key_BHNQD)
