"""Caches that answer the queries of a layer themselves, since they hold other pairs than were stored.

The model hands new pairs to `update`, as to any cache, and then the queries to `answer`. The slots of such a
cache are its own business: the model makes no masks of slots for it.

Shapes: B batch, H heads, T new tokens, D head size.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F
from transformers.cache_utils import Cache, LinearAttentionAndFullAttentionLayer

if TYPE_CHECKING:
    from ..configuration_mosaic import MosaicConfig
    from ..memory_masks import MemoryMasks


class AnsweringLayer(LinearAttentionAndFullAttentionLayer):
    """One layer of an [`AnsweringCache`]: its states, and the slots of tokens that it holds one by one."""

    is_croppable = False

    def __init__(self, number_of_states: int):
        super().__init__(number_of_states=number_of_states)
        self._forget()

    def _forget(self) -> None:
        """What a new layer holds besides keys, values and states."""
        self.num_seen = 0
        self.num_new = 0

    def update(self, key_states, value_states, *args, **kwargs):
        """Stores new pairs, for which `answer` will find a place."""
        self.num_new = key_states.shape[2]
        self.num_seen += self.num_new
        return super().update(key_states, value_states)

    def answer(
        self, query_BHTD: torch.Tensor, recall_BT: torch.Tensor, has_padding: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Answers the queries of the tokens last stored.

        Args:
            query_BHTD (`torch.Tensor`): a query for each new slot.
            recall_BT (`torch.BoolTensor`): False for queries whose memory is empty and for padding; their
                slots hold no pair.
            has_padding (`bool`): whether it can be False but for the first token.

        Returns:
            `tuple`: answers `(batch, time, heads, head_dim)`, 0 where the memory is empty; and the weights
            `(batch, heads, time, slots)`, or `None`.
        """
        raise NotImplementedError

    def get_seq_length(self) -> int:
        """Tokens seen, whatever is left of them."""
        return self.num_seen

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Slots held one by one, with those of `query_length` new tokens."""
        return (self.keys.shape[2] if self.is_initialized else 0) + query_length, 0

    def reset(self) -> None:
        # Dropped, as they grow by concatenation; transformers 5.16 would keep them as zeros.
        self.keys = self.values = None
        self.is_initialized = False
        super().reset()
        self._forget()

    def activate_past_recording(self) -> None:
        raise ValueError(
            "this cache cannot take tokens back, as prompt lookup and assisted decoding do: use DynamicCache"
        )

    def crop(self, tokens_to_remove: int) -> None:
        raise ValueError("this cache cannot be cropped: it has no place for what its tokens have replaced")


class AnsweringCache(Cache):
    """A cache that answers in the model's place.

    Args:
        config (`MosaicConfig`): the model's config.
        make_layer (`Callable`): makes an [`AnsweringLayer`] for each of its layers.

    Raises:
        ValueError: for the config of another model, which would never ask it.
    """

    def __init__(self, config: "MosaicConfig", make_layer: Callable[[], AnsweringLayer]):
        if config.model_type != "mosaic":
            raise ValueError(
                f"{type(self).__name__} needs a Memory Mosaic's config, not {config.model_type}'s"
            )
        super().__init__(layers=[make_layer() for _ in range(config.num_hidden_layers)])

    def answer(
        self, query_BHTD: torch.Tensor, masks: "MemoryMasks", layer_idx: int
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Answers the queries of a layer, see `AnsweringLayer.answer`."""
        return self.layers[layer_idx].answer(query_BHTD, masks["recall"], masks["keep"] is not None)


def append_slots(
    visible_BHS: torch.Tensor | None, recall_BT: torch.Tensor, key_BHTD: torch.Tensor
) -> torch.Tensor:
    """Which slots hold pairs, `(batch, heads, slots)`, with those of new tokens."""
    new_BHT = recall_BT[:, None].expand(key_BHTD.shape[:3])
    return new_BHT if visible_BHS is None else torch.cat([visible_BHS, new_BHT], 2)


def score_slots(query_BHTD: torch.Tensor, key_BHSD: torch.Tensor, visible_BHS: torch.Tensor) -> torch.Tensor:
    """Similarities in full precision; -inf where a query sees no pair: the last one sees all slots."""
    time, num_slots = query_BHTD.shape[2], key_BHSD.shape[2]
    dtype = torch.promote_types(query_BHTD.dtype, torch.float32)
    score_BHTS = (query_BHTD @ key_BHSD.transpose(2, 3)).to(dtype)
    visible_BHTS = visible_BHS[:, :, None]
    if time > 1:
        is_past_TS = torch.ones(time, num_slots, dtype=torch.bool, device=query_BHTD.device)
        visible_BHTS = visible_BHTS & is_past_TS.tril(num_slots - time)
    return score_BHTS.masked_fill(~visible_BHTS, -torch.inf)


def pad_slots(state_BHNS: torch.Tensor | None, num_states: int, key_BHTD: torch.Tensor) -> torch.Tensor:
    """Numbers kept for each slot, 0 for those of new tokens; in full precision."""
    if state_BHNS is None:
        dtype = torch.promote_types(key_BHTD.dtype, torch.float32)
        state_BHNS = key_BHTD.new_zeros((*key_BHTD.shape[:2], num_states, 0), dtype=dtype)
    return F.pad(state_BHNS, (0, key_BHTD.shape[2]))
