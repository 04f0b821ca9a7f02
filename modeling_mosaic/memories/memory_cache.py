"""A cache in which a memory lies in front of a text."""

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F
from transformers.cache_utils import DynamicCache, LinearAttentionAndFullAttentionLayer

if TYPE_CHECKING:
    from .portable_memory import MosaicMemory


class MemoryCache(DynamicCache):
    """A cache that holds a memory in front of a text.

    `get_seq_length` counts the tokens of the text alone, so that `generate()` takes a prompt for the whole
    text; masks reckon with the slots in front (`memory_masks.py`, `memory_masks_v2.py`).

    Attributes:
        ages_in_front (`torch.Tensor` of shape `(slots,)`): how many tokens before the text's first one the
            token of each slot's pair was, 0 for slot 0, the dummy, which holds none.
        window_ages_in_front (`torch.Tensor` of shape `(columns,)`): the same for the columns of a short-term
            memory's window, whose first one is a dummy, and where forgotten pairs have left empty ones.
    """

    def __init__(self, memory: "MosaicMemory", batch_size: int):
        super().__init__()
        states, window = memory.layout.states.values(), memory.window
        self.ages_in_front = F.pad(memory.ages(), (1, 0))
        self.window_ages_in_front = F.pad(window.ages() * window.is_held(), (1, 0))
        self.layers = [
            LinearAttentionAndFullAttentionLayer(number_of_states=memory.layout.number_of_states)
            for _ in memory.keys
        ]
        for layer_idx in range(len(self.layers)):
            slots = (F.pad(pairs[layer_idx], (0, 0, 1, 0)) for pairs in (memory.keys, memory.values))
            self.update(*(pairs.expand(batch_size, -1, -1, -1) for pairs in slots), layer_idx)
            for state, state_LC in zip(states, memory.states, strict=True):
                self._hold(state.number, state_LC[layer_idx, :, None], layer_idx, batch_size)
            for number, pairs in zip(memory.layout.window, (window.keys, window.values), strict=False):
                columns_CW = F.pad(pairs[layer_idx].transpose(1, 2).flatten(0, 1), (1, 0))
                self._hold(number, columns_CW, layer_idx, batch_size)

    def _hold(self, number: int, state_CW: torch.Tensor, layer_idx: int, batch_size: int) -> None:
        state_BCW = state_CW.expand(batch_size, -1, -1)
        self.update_conv_state(state_BCW, layer_idx, state_idx=number, conv_kernel_size=state_CW.shape[-1])

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return super().get_seq_length(layer_idx) - len(self.ages_in_front)

    def get_query_offset(self, layer_idx: int = 0) -> int:
        return super().get_seq_length(layer_idx)
