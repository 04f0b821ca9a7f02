"""Masks: which memory slots each token may see, given padding and packed sequences.

Shapes: B batch, T new tokens, S slots. Slot t holds pair t - 1; slot 0 is a dummy.
"""

from typing import Any, TypedDict

import torch
from torch.nn import functional as F
from transformers.cache_utils import Cache
from transformers.masking_utils import create_causal_mask, find_packed_sequence_indices
from transformers.utils.generic import is_flash_attention_requested
from transformers.utils.import_utils import is_torchdynamo_exporting, is_tracing

from .compatibility import renames_cache
from .configuration_mosaic import MosaicConfig
from .leaky_average import ElapsedTimes
from .memory_state import holds_memories, slots_in_front


class MemoryMasks(TypedDict):
    """The masks of all layers; `None` stands for nothing to mask. A `dict`, which `generate()` copies."""

    # Which slots a query sees, in the form that the attention implementation wants; `None` if plain causal.
    slots: Any
    # `(batch, time)`: False for queries whose memory is empty; `None` if plain causal.
    recall: torch.Tensor | None
    # `(batch, time)`: False for padding.
    keep: torch.Tensor | None
    # `(batch, time)`: True for the first token of each packed sequence.
    start: torch.Tensor | None
    # `(sequences + 1,)`: borders between the pairs of packed sequences, for flash attention.
    cu_seq_lens: torch.Tensor | None
    # Between the new tokens, for the leaky averages of several; the model adds them.
    elapsed: ElapsedTimes | None


@renames_cache
def create_memory_masks(
    config: MosaicConfig,
    inputs_embeds: torch.Tensor,
    attention_mask: torch.Tensor | MemoryMasks | None,
    cache: Cache | None = None,
    *,
    start_BT: torch.Tensor | None = None,
    **kwargs,
) -> MemoryMasks:
    """Makes the masks of all layers; `generate()` asks for them ahead of a compiled forward.

    Args:
        config (`MosaicConfig`): its attention implementation decides their form.
        inputs_embeds (`torch.Tensor` of shape `(batch, time, ...)`): the new tokens.
        attention_mask (`torch.Tensor` of shape `(batch, seen + time)`, *optional*): 0 for padding; masks
            that are ready pass through. It says nothing about a memory in front of the text.
        cache (`Cache`, *optional*): memories so far.
        start_BT (`torch.Tensor` of shape `(batch, time)`, *optional*): True where packed sequences start.

    Raises:
        ValueError: for a mask of another shape.
    """
    if isinstance(attention_mask, dict):
        return attention_mask
    if start_BT is not None:
        return create_packed_masks(config, inputs_embeds, start_BT)
    batch, time = inputs_embeds.shape[:2]
    front = slots_in_front(cache)
    seen = 0 if cache is None else cache.get_seq_length() + front
    # Lengths are tensors then, and reading them would break the graph.
    is_static = cache is not None and cache.is_compileable
    keep_BS = as_keep_mask(attention_mask, batch, None if is_static else seen - front + time)
    if keep_BS is not None and front:
        keep_BS = F.pad(keep_BS, (front, 0), value=True)
    if keep_BS is not None and not is_static and is_without_effect(keep_BS, cache):
        keep_BS = None
    # A cache that answers by itself, as `BoundedCache` does, knows its slots.
    answers = hasattr(cache, "answer")
    masks = MemoryMasks(slots=None, recall=None, keep=None, start=None, cu_seq_lens=None, elapsed=None)
    if keep_BS is None and not is_static and not answers and has_causal_kernel(config, seen, time):
        return masks
    if keep_BS is None:
        slot_S = torch.arange(count_slots(config, cache, time), device=inputs_embeds.device)
        query_T = torch.arange(time, device=inputs_embeds.device) + seen
        slots_BS = ((slot_S > 0) & (slot_S <= query_T[-1])).expand(batch, -1)
        masks["recall"] = (query_T > 0).expand(batch, -1)
    else:
        slots_BS = keep_BS & (keep_BS.cumsum(-1) > 1)
        masks["recall"], masks["keep"] = slots_BS[:, -time:], keep_BS[:, -time:]
        if is_static:
            # Not views of ever longer masks: a compiled step would be compiled again for each stride.
            masks["recall"], masks["keep"] = (
                masks[name].clone(memory_format=torch.contiguous_format) for name in ("recall", "keep")
            )
    if answers:
        return masks
    masks["slots"] = create_causal_mask(config, inputs_embeds, slots_BS, cache, allow_is_causal_skip=False)
    return masks


def is_without_effect(keep_BS: torch.Tensor, cache: Cache | None) -> bool:
    """Whether a mask hides nothing, or only padding to the right of all tokens, where none of them looks."""
    if keep_BS.is_meta or is_tracing(keep_BS):
        return False
    is_right_padded = cache is None and bool((keep_BS[:, 1:] <= keep_BS[:, :-1]).all())
    return is_right_padded or bool(keep_BS.all())


def count_slots(config: MosaicConfig, cache: Cache | None, time: int) -> int:
    """How many slots attention gets to see, `time` new ones included."""
    if cache is None:
        return time
    if is_flash_attention_requested(config):
        # It takes the last queries for those of the last slots, and so must not see the free slots of a
        # static cache.
        return int(cache.get_seq_length()) + slots_in_front(cache) + time
    return cache.get_mask_sizes(time, 0)[0]


def has_causal_kernel(config: MosaicConfig, seen: int, time: int) -> bool:
    """Whether attention is causal by itself: sdpa aligns first query and first key, flash the last ones."""
    # An exported graph serves any number of tokens, and leaving out the first query would rule out two.
    if is_torchdynamo_exporting():
        return False
    is_aligned = seen == 0 or time == 1
    return is_flash_attention_requested(config) or (config._attn_implementation == "sdpa" and is_aligned)


def as_keep_mask(attention_mask: torch.Tensor | None, batch: int, length: int | None) -> torch.Tensor | None:
    """The `(batch, length)` mask as booleans; `length` is `None` where it cannot be known."""
    if attention_mask is None:
        return None
    expected = (batch, attention_mask.shape[-1] if length is None else length)
    if tuple(attention_mask.shape) != expected:
        raise ValueError(
            f"attention_mask must have shape (batch, tokens seen + new tokens) = {expected}, not "
            f"{tuple(attention_mask.shape)}: a leaky average needs to know which tokens are padding"
        )
    return attention_mask.bool()


def check_borders(cu_seq_lens: torch.Tensor, time: int) -> None:
    """Raises a `ValueError` unless borders of packed sequences rise from 0 to the number of tokens."""
    if is_tracing(cu_seq_lens):
        return
    borders = cu_seq_lens.flatten().tolist()
    if borders[:1] != [0] or borders[-1:] != [time] or borders != sorted(borders):
        raise ValueError(f"cu_seq_lens_q must rise from 0 to the {time} tokens of the row, not {borders}")


def find_sequence_starts(
    inputs_embeds: torch.Tensor,
    attention_mask: torch.Tensor | None,
    position_ids: torch.Tensor | None,
    cache: Cache | None,
    seq_idx: torch.Tensor | None,
    cu_seq_lens: torch.Tensor | None,
) -> torch.Tensor | None:
    """Where packed sequences start, `(batch, time)`; `None` if each row is one sequence."""
    if seq_idx is None and cu_seq_lens is None:
        if position_ids is None or attention_mask is not None or cache is not None:
            return None
        seq_idx = find_packed_sequence_indices(position_ids.expand(inputs_embeds.shape[0], -1))
        if seq_idx is None:
            return None
    elif attention_mask is not None or holds_memories(cache):
        raise ValueError("packed sequences (seq_idx, cu_seq_lens_q) exclude attention_mask and cache")
    start_BT = torch.zeros(inputs_embeds.shape[:2], dtype=torch.bool, device=inputs_embeds.device)
    start_BT[:, 0] = True
    if seq_idx is not None:
        start_BT[:, 1:] = seq_idx[:, 1:] != seq_idx[:, :-1]
    elif len(inputs_embeds) == 1:
        check_borders(cu_seq_lens, inputs_embeds.shape[1])
        start_BT[0, cu_seq_lens[:-1].long()] = True
    else:
        raise ValueError(f"cu_seq_lens_q needs a batch of one row, not {len(inputs_embeds)}")
    return start_BT


def create_packed_masks(
    config: MosaicConfig, inputs_embeds: torch.Tensor, start_BT: torch.Tensor
) -> MemoryMasks:
    """The masks of `create_memory_masks` for rows in which several sequences follow each other."""
    masks = MemoryMasks(
        slots=None, recall=~start_BT, keep=None, start=start_BT, cu_seq_lens=None, elapsed=None
    )
    if is_flash_attention_requested(config):
        bound = start_BT.flatten().nonzero()[:, 0]
        end = F.pad(bound[1:], (0, 1), value=start_BT.numel())
        masks["cu_seq_lens"] = F.pad((end - bound - 1).cumsum(0), (1, 0)).int()
        return masks
    sequence_BT = start_BT.cumsum(-1)

    def within_sequence(batch_idx, head_idx, query_idx, slot_idx):
        same = sequence_BT[batch_idx, query_idx] == sequence_BT[batch_idx, slot_idx]
        return same & ~start_BT[batch_idx, slot_idx]

    masks["slots"] = create_causal_mask(config, inputs_embeds, None, None, and_mask_function=within_sequence)
    return masks
