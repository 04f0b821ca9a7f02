"""Masks of a Memory Mosaic v2: which slots of its two memories each token may see, and how many.

A token sees a range of slots in each memory, by the number of real tokens of its row: the short-term memory's
latest ones, and the long-term memory's up to some delay ago. Padding has no number, and a range ends where a
packed sequence starts. Slots are those of `memory_masks.py`: slot t holds pair t - 1, slot 0 is a dummy.

Shapes: B batch, b batch or 1, T new tokens, S slots; W columns of the window, those of the cache in front of
the new ones; N blocks of h tokens, h being `short_memory_size`.
"""

from typing import Any, NamedTuple, TypedDict

import torch
from torch.nn import functional as F
from transformers.cache_utils import Cache
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.utils.import_utils import is_torchdynamo_exporting, is_tracing

from .compatibility import renames_cache
from .configuration_mosaic_v2 import MosaicV2Config
from .memory_masks import as_keep_mask, count_slots, is_without_effect
from .memory_state import slots_in_front

# The number of what is no token, or padding. No range reaches it.
NO_TOKEN = -1
# The number of a state: the keys of the cached window.
WINDOW_KEYS = 3


class MemoryMasksV2(TypedDict):
    """The masks of all layers. A `dict`, which `generate()` copies."""

    # Which slots a query sees, in the form that the attention implementation wants: of the short-term
    # memory's window (`(B * N, 1, h, 2 * h)` if `blocks`), and of the long-term memory. `None` if plain
    # causal.
    short: Any
    long: Any
    # `(b, 1, time, 1)`: log of how many that are, or of 1.
    short_log_pairs: torch.Tensor
    long_log_pairs: torch.Tensor
    # `(b, time, 1, 1)`: True for queries that find the memory empty.
    short_empty: torch.Tensor
    long_empty: torch.Tensor
    # How many pairs the last query sees, where that memory's mask is `None`.
    num_short: int | None
    num_long: int | None
    # The delay m of the long-term memory, in tokens; a tensor in compiled training.
    delay: int | torch.Tensor
    # Whether the window is seen by blocks of queries.
    blocks: bool
    # Whether the cache holds a past of the new tokens, and how many columns of the window.
    continues: bool
    num_cached: int
    # How many columns it is to keep: h - 1, and one more for each place of padding between tokens.
    num_kept: int
    # `(b, slots)`: the window's column of each slot, or -1, for attention weights; `None` if not eager.
    columns: torch.Tensor | None
    # `(batch, time)`: False for padding.
    keep: torch.Tensor | None
    # `(b, time)`: True for the first token of each sequence, if there may be something before it.
    start: torch.Tensor | None


@renames_cache
def create_memory_masks_v2(
    config: MosaicV2Config,
    inputs_embeds: torch.Tensor,
    attention_mask: torch.Tensor | MemoryMasksV2 | None,
    cache: Cache | None = None,
    *,
    start_BT: torch.Tensor | None = None,
    delay: int | torch.Tensor | None = None,
    **kwargs,
) -> MemoryMasksV2:
    """Makes the masks of all layers; `generate()` asks for them ahead of a compiled forward.

    Args:
        config (`MosaicV2Config`): its attention implementation decides their form.
        inputs_embeds (`torch.Tensor` of shape `(batch, time, ...)`): the new tokens.
        attention_mask (`torch.Tensor` of shape `(batch, seen + time)`, *optional*): 0 for padding; masks
            that are ready pass through. It says nothing about a memory in front of the text.
        cache (`Cache`, *optional*): memories so far.
        start_BT (`torch.Tensor` of shape `(batch, time)`, *optional*): True where packed sequences start.
        delay (`int` or `torch.Tensor`, *optional*): m of the long-term memory; the config's if `None`, and
            for a memory in front or a cache that answers by itself, which hold pairs by that one.

    Raises:
        ValueError: for a mask of another shape, or padding between tokens with a static cache.
    """
    if isinstance(attention_mask, dict):
        return attention_mask
    batch, time = inputs_embeds.shape[:2]
    seen = 0 if cache is None else cache.get_seq_length()
    # Lengths are tensors then, and reading them would break the graph.
    is_static = cache is not None and cache.is_compileable
    keep_BS = as_keep_mask(attention_mask, batch, None if is_static else seen + time)
    if keep_BS is not None and not is_static and is_without_effect(keep_BS, cache):
        keep_BS = None
    has_front, answers = slots_in_front(cache) > 0, hasattr(cache, "answer")
    delay = config.long_memory_delay if delay is None or has_front or answers else delay
    num_kept = config.short_memory_size - 1 + count_gaps(keep_BS, is_static, has_front, time)
    num_cached = count_cached_columns(cache, num_kept, None if is_static else seen)
    tokens = number_tokens(config, inputs_embeds, keep_BS, start_BT, cache, seen, num_cached)
    keep_BT = None if keep_BS is None else keep_BS[:, -time:].clone(memory_format=torch.contiguous_format)
    is_plain = keep_BS is None and start_BT is None and not (is_static or has_front)
    is_plain = is_plain and has_causal_kernel(config, seen, time)
    is_short = is_plain and time <= config.short_memory_size
    return fill_masks(
        config,
        inputs_embeds,
        tokens,
        cache,
        num_short=min(seen + time - 1, config.short_memory_size) if is_short else None,
        num_long=max(seen + time - delay, 0) if is_plain and isinstance(delay, int) else None,
        delay=delay,
        continues=is_static or seen > 0 or has_front,
        num_cached=num_cached,
        num_kept=num_kept,
        keep=keep_BT,
        # A static cache that was reset holds averages of zeros, not of nothing.
        start=tokens.query_bT == 0 if is_static else start_BT,
    )


def fill_masks(
    config: MosaicV2Config,
    inputs_embeds: torch.Tensor,
    tokens: "TokenNumbers",
    cache: Cache | None = None,
    **given,
) -> MemoryMasksV2:
    """Makes the masks of tokens whose numbers are known.

    Args:
        config, inputs_embeds, cache: as for [`create_memory_masks_v2`].
        tokens (`TokenNumbers`): the numbers.
        given: what does not follow from them: `num_short`, `num_long`, `delay`, `continues`, `num_cached`,
            `num_kept`, `keep` and `start` of the masks.
    """
    batch, time = inputs_embeds.shape[:2]
    size, answers = config.short_memory_size, hasattr(cache, "answer")
    short, long = see_latest(tokens, size), see_older(tokens, given["delay"])
    num_short_bT, num_long_bT = (ranges.count(slots_in_front(cache) > 0) for ranges in (short, long))
    if answers:
        num_long_bT = cache.count_held(num_long_bT)
    dtype = torch.promote_types(inputs_embeds.dtype, torch.float32)
    has_columns = config._attn_implementation == "eager" and not answers
    masks = MemoryMasksV2(
        short=None,
        long=None,
        short_log_pairs=num_short_bT.clamp(min=1).to(dtype).log()[:, None, :, None],
        long_log_pairs=num_long_bT.clamp(min=1).to(dtype).log()[:, None, :, None],
        short_empty=(num_short_bT <= 0)[:, :, None, None],
        long_empty=(num_long_bT <= 0)[:, :, None, None],
        blocks=given["num_short"] is None and has_blocks(config, given["keep"], given["num_kept"], time),
        columns=find_columns(tokens) if has_columns else None,
        **given,
    )
    if masks["blocks"]:
        masks["short"] = make_block_mask(short, size, batch)
    elif masks["num_short"] is None:
        masks["short"] = make_mask(config, inputs_embeds, short)
    if masks["num_long"] is None and config.use_long_memory and not answers:
        masks["long"] = make_mask(config, inputs_embeds, long)
    return masks


class TokenNumbers(NamedTuple):
    """Numbers of tokens within their row, from 0 on, without padding."""

    # Of the new tokens, and of the first token of the sequence that each of them belongs to.
    query_bT: torch.Tensor
    first_bT: torch.Tensor
    # Of the slots of the long-term memory, and of the columns of the short-term memory's window.
    slot_bS: torch.Tensor
    window_bW: torch.Tensor


def number_tokens(config, inputs_embeds, keep_BS, start_BT, cache, seen, num_cached) -> TokenNumbers:
    """The numbers of tokens, given padding, or where packed sequences start."""
    time, device = inputs_embeds.shape[1], inputs_embeds.device
    step_1T = torch.arange(time, device=device)[None]
    if start_BT is not None:
        return TokenNumbers(step_1T, torch.where(start_BT, step_1T, 0).cummax(-1).values, step_1T, step_1T)
    # Tokens of a memory in front have numbers of their own.
    num_slots, first = count_slots(config, cache, time) - slots_in_front(cache), number_first(config, cache)
    if keep_BS is None:
        query_bT = step_1T + (seen + first)
        slot_bS = torch.arange(first, first + num_slots, device=device)[None]
        window_bW = torch.arange(-num_cached, time, device=device)[None] + (seen + first)
    else:
        slot_bS = (keep_BS.cumsum(-1) + (first - 1)).masked_fill(~keep_BS, NO_TOKEN)
        query_bT = window_bW = slot_bS[:, -time:]
        if num_cached:
            missing = max(num_cached + time - slot_bS.shape[-1], 0)
            window_bW = F.pad(slot_bS, (missing, 0), value=NO_TOKEN)[:, -(num_cached + time) :]
        if cache is not None and cache.is_compileable:
            slot_bS = F.pad(slot_bS, (0, num_slots - slot_bS.shape[-1]), value=NO_TOKEN)
    if first:
        window_bW = put_in_front(cache.window_ages_in_front, slot_bS, first)[:, -(num_cached + time) :]
        slot_bS = put_in_front(cache.ages_in_front, slot_bS, first)
    return TokenNumbers(query_bT, torch.zeros_like(query_bT), slot_bS, window_bW)


def number_first(config: MosaicV2Config, cache: Cache | None) -> int:
    """The number of a text's first token: behind a memory, one that no short-term memory reaches beyond."""
    return config.short_memory_size + 1 if slots_in_front(cache) else 0


def put_in_front(age_S: torch.Tensor, number_bS: torch.Tensor, first: int) -> torch.Tensor:
    """Numbers of slots, with those of a memory in front, whose ages are counted from the first token back."""
    age_S = age_S.to(number_bS)
    front_S = (first + 1 - age_S).clamp(min=1).masked_fill(age_S == 0, NO_TOKEN)
    return torch.cat([front_S.expand(len(number_bS), -1), number_bS], -1)


class SlotRanges(NamedTuple):
    """The slots that each query sees: those with `after < number <= until`."""

    after_bT: torch.Tensor
    until_bT: torch.Tensor
    slot_bS: torch.Tensor

    def count(self, has_holes: bool) -> torch.Tensor:
        """How many slots that are, `(b, time)`; each number is that of one slot, unless there are holes."""
        if not has_holes:
            return (self.until_bT - self.after_bT).clamp(min=0)
        number_b1S = self.slot_bS[:, None]
        is_seen_bTS = (self.after_bT[..., None] < number_b1S) & (number_b1S <= self.until_bT[..., None])
        return is_seen_bTS.sum(-1)

    def sees(self, batch_idx, head_idx, query_idx, slot_idx):
        """Whether a query sees a slot: a function as transformers makes masks from."""
        number = self.slot_bS[batch_idx, slot_idx]
        after, until = self.after_bT[batch_idx, query_idx], self.until_bT[batch_idx, query_idx]
        return (after < number) & (number <= until)


def make_ranges(after_bT, until_bT, slot_bS) -> SlotRanges:
    return SlotRanges(after_bT, until_bT.expand_as(after_bT), slot_bS.expand(after_bT.shape[0], -1))


def see_latest(tokens: TokenNumbers, num_pairs: int) -> SlotRanges:
    """The short-term memory: the latest pairs of the sequence."""
    after_bT = torch.maximum(tokens.first_bT, tokens.query_bT - num_pairs)
    return make_ranges(after_bT, tokens.query_bT, tokens.window_bW)


def see_older(tokens: TokenNumbers, delay: int | torch.Tensor) -> SlotRanges:
    """The long-term memory: pairs up to `delay` tokens ago. The latest pair is 1 token old."""
    return make_ranges(tokens.first_bT, tokens.query_bT - (delay - 1), tokens.slot_bS)


def count_gaps(keep_BS: torch.Tensor | None, is_static: bool, has_front: bool, time: int) -> int:
    """How many places of padding a row has behind its first token, or behind a memory, at most."""
    if keep_BS is None or (is_static and time == 1) or keep_BS.is_meta or is_tracing(keep_BS):
        return 0
    is_behind_BS = keep_BS.cumsum(-1) > 0
    num_gaps = int(((is_behind_BS | has_front) & ~keep_BS).sum(-1).max())
    if num_gaps and is_static:
        raise ValueError("a static cache takes padding on the left only, not behind the first token of a row")
    return num_gaps


def count_cached_columns(cache: Cache | None, num_kept: int, seen: int | None) -> int:
    """How many columns of the window are in the cache; `seen` is `None` where it cannot be known."""
    state_BCW = None if cache is None else getattr(cache.layers[0], "conv_states", {}).get(WINDOW_KEYS)
    if state_BCW is None:
        return 0
    width = state_BCW.shape[-1]
    num_read = width if seen is None else seen + len(getattr(cache, "window_ages_in_front", ()))
    return min(width, num_kept, num_read)


def find_columns(tokens: TokenNumbers) -> torch.Tensor:
    """The window's column of each slot of the long-term memory, or -1, `(b, slots)`."""
    same_bSW = tokens.slot_bS[..., None] == tokens.window_bW[:, None]
    same_bSW = same_bSW & (tokens.slot_bS > NO_TOKEN)[..., None]
    return torch.where(same_bSW.any(-1), same_bSW.int().argmax(-1), -1)


def has_causal_kernel(config: MosaicV2Config, seen, time: int) -> bool:
    """Whether sdpa's own causal mask serves, which aligns the first query with the first key."""
    if is_torchdynamo_exporting() or config._attn_implementation != "sdpa":
        return False
    return seen == 0 or time == 1


def has_blocks(config: MosaicV2Config, keep_BT: torch.Tensor | None, num_kept: int, time: int) -> bool:
    """Whether each block of queries sees only its own columns of the window and those of the block before."""
    if config._attn_implementation != "sdpa" or is_torchdynamo_exporting():
        return False
    if keep_BT is not None and (keep_BT.is_meta or is_tracing(keep_BT)):
        return False
    # Columns must be as far from each other as their tokens are: no padding in between.
    return time > config.short_memory_size > num_kept


def make_mask(config: MosaicV2Config, inputs_embeds: torch.Tensor, ranges: SlotRanges):
    """The mask of all queries and slots, in the form that the attention implementation wants."""
    after_bT = ranges.after_bT
    return ALL_MASK_ATTENTION_FUNCTIONS[config._attn_implementation](
        batch_size=after_bT.shape[0],
        q_length=after_bT.shape[-1],
        kv_length=ranges.slot_bS.shape[-1],
        mask_function=ranges.sees,
        attention_mask=None,
        allow_is_causal_skip=False,
        dtype=inputs_embeds.dtype,
        device=inputs_embeds.device,
        config=config,
    )


def make_block_mask(ranges: SlotRanges, size: int, batch: int) -> torch.Tensor:
    """The mask of blocks of h queries, each of which sees 2 h columns, `(B * N, 1, h, 2 * h)`."""
    time = ranges.after_bT.shape[-1]
    fill = -time % size
    num_cached = ranges.slot_bS.shape[-1] - time
    slot_bNh = F.pad(ranges.slot_bS, (size - num_cached, fill), value=NO_TOKEN).unflatten(-1, (-1, size))
    slot_bN1S = torch.cat([slot_bNh[:, :-1], slot_bNh[:, 1:]], -1)[:, :, None]
    after_bNh1, until_bNh1 = (
        F.pad(bound_bT, (0, fill), value=NO_TOKEN).unflatten(-1, (-1, size))[..., None]
        for bound_bT in (ranges.after_bT, ranges.until_bT)
    )
    mask_bNhS = (after_bNh1 < slot_bN1S) & (slot_bN1S <= until_bNh1)
    return mask_bNhS.expand(batch, -1, -1, -1).flatten(0, 1)[:, None]
