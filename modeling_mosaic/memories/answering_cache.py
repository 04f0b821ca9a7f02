"""Caches that answer the queries of a layer themselves, since they hold other pairs than were stored.

The model hands new pairs to `update`, as to any cache, and then the queries to `answer`. The slots of such a
cache are its own business: the model makes no masks of slots for it.

Shapes: B batch, H heads, T new tokens, W waiting pairs, S slots, D head size.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F
from transformers.cache_utils import Cache, LinearAttentionAndFullAttentionLayer

from .eviction import take_steps
from .layout import find_layout

if TYPE_CHECKING:
    from ..configuration_mosaic import MosaicConfig
    from ..configuration_mosaic_v2 import MosaicV2Config


class AnsweringLayer(LinearAttentionAndFullAttentionLayer):
    """One layer of an [`AnsweringCache`]: its states, and the slots of tokens that it holds one by one.

    New pairs wait until they are old enough to be seen: in the long-term memories of the second model, for
    `config.long_memory_delay - 1` tokens. So a token stores one pair at most, the youngest that it sees.
    """

    is_croppable = False

    def __init__(self, config: "MosaicConfig | MosaicV2Config"):
        super().__init__(number_of_states=config.number_of_conv_states)
        self.num_waiting = config.stored_delay - 1
        self._forget()

    def _forget(self) -> None:
        """What a new layer holds besides keys, values and states."""
        self.num_seen = 0
        self.waiting_keys: torch.Tensor | None = None
        self.waiting_values: torch.Tensor | None = None
        # Which slots hold a pair, `(batch, heads, slots)`.
        self.visible: torch.Tensor | None = None

    def update(self, key_states, value_states, *args, **kwargs):
        """Takes the pairs that new tokens complete, which `answer` will store."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states[:, :, :0], value_states[:, :, :0]
            batch, heads, _, head_dim = key_states.shape
            self.waiting_keys = key_states.new_zeros(batch, heads, self.num_waiting, head_dim)
            self.waiting_values = torch.zeros_like(self.waiting_keys)
        self.num_seen += key_states.shape[2]
        self.waiting_keys = torch.cat([self.waiting_keys, key_states], 2)
        self.waiting_values = torch.cat([self.waiting_values, value_states], 2)
        return key_states, value_states

    def release(self, keep_BT: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of the pairs that are old enough by now, one for each new token; the others wait.

        Which of them are pairs says `recall_BT` of `answer`: those of padding, and of the first tokens, are
        none.
        """
        lines = self.waiting_keys, self.waiting_values
        num_new = self.waiting_keys.shape[2] - self.num_waiting
        if keep_BT is None or not self.num_waiting:
            released = [line[:, :, :num_new] for line in lines]
            # Copies: a view would keep a whole prompt.
            self.waiting_keys, self.waiting_values = (line[:, :, num_new:].clone() for line in lines)
            return tuple(released)
        # Places of padding go first, since pairs wait for real tokens.
        order_BS = F.pad(keep_BT.byte(), (self.num_waiting, 0), value=1).argsort(dim=-1, stable=True)
        place_BT = (~keep_BT).sum(-1, keepdim=True) + keep_BT.cumsum(-1) - 1
        released_BT = order_BS.gather(1, place_BT.clamp(min=0))
        self.waiting_keys, self.waiting_values = (take_steps(line, order_BS[:, num_new:]) for line in lines)
        return tuple(take_steps(line, released_BT) for line in lines)

    def append(self, key_BHTD: torch.Tensor, value_BHTD: torch.Tensor, recall_BT: torch.Tensor) -> None:
        """Stores pairs that were released, in new slots."""
        self.keys = torch.cat([self.keys, key_BHTD], 2)
        self.values = torch.cat([self.values, value_BHTD], 2)
        new_BHT = recall_BT[:, None].expand(key_BHTD.shape[:3])
        self.visible = new_BHT if self.visible is None else torch.cat([self.visible, new_BHT], 2)

    def answer(
        self, query_BHTD: torch.Tensor, recall_BT: torch.Tensor, keep_BT: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Stores the pairs that new tokens begin to see, and answers the queries of these tokens.

        Args:
            query_BHTD (`torch.Tensor`): a query for each new token.
            recall_BT (`torch.BoolTensor`): False for queries whose memory is empty and for padding, which
                store no pair.
            keep_BT (`torch.BoolTensor`, *optional*): False for padding; `None` if there is none.

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
    """A cache that answers in the model's place: the first model's contextual memories, and the second's
    long-term ones, whose short-term memories go on as usual.

    Args:
        config (`MosaicConfig` or `MosaicV2Config`): the model's config.
        make_layer (`Callable`): makes an [`AnsweringLayer`] for each of its layers.

    Raises:
        ValueError: for the config of another model, which would never ask it, or of one without long-term
            memory.
    """

    def __init__(self, config: "MosaicConfig | MosaicV2Config", make_layer: Callable[[], AnsweringLayer]):
        find_layout(config)
        super().__init__(layers=[make_layer() for _ in range(config.num_hidden_layers)])

    def answer(
        self,
        query_BHTD: torch.Tensor,
        recall_bT: torch.Tensor,
        keep_BT: torch.Tensor | None,
        layer_idx: int,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Answers the queries of a layer, see `AnsweringLayer.answer`."""
        recall_BT = recall_bT.expand(len(query_BHTD), -1)
        return self.layers[layer_idx].answer(query_BHTD, recall_BT, keep_BT)

    def count_held(self, num_pairs_bT: torch.Tensor) -> torch.Tensor:
        """How many pairs each new token will find, out of those that it might see, `(b, time)`.

        Args:
            num_pairs_bT (`torch.Tensor`): pairs that have been stored by then; 0 for padding.
        """
        return num_pairs_bT


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
