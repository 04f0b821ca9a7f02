"""A cache in which a memory lies in front of a text."""

from typing import TYPE_CHECKING

from torch.nn import functional as F
from transformers.cache_utils import DynamicCache

from ..configuration_mosaic import MosaicConfig

if TYPE_CHECKING:
    from .portable_memory import MosaicMemory


class MemoryCache(DynamicCache):
    """A cache that holds a memory in front of a text.

    `get_seq_length` counts the tokens of the text alone, so that `generate()` takes a prompt for the whole
    text; masks reckon with the slots in front (`memory_masks.py`).
    """

    def __init__(self, memory: "MosaicMemory", batch_size: int):
        num_layers, num_heads, num_pairs, head_dim = memory.keys.shape
        shape = {"num_hidden_layers": num_layers, "num_attention_heads": num_heads}
        super().__init__(config=MosaicConfig(hidden_size=num_heads * head_dim, **shape))
        # Slot 0 is the dummy.
        self.num_slots_in_front = num_pairs + 1
        for layer_idx in range(num_layers):
            slots = (F.pad(pairs[layer_idx], (0, 0, 1, 0)) for pairs in (memory.keys, memory.values))
            self.update(*(pairs.expand(batch_size, -1, -1, -1) for pairs in slots), layer_idx)
            for state_idx, state_LC in enumerate(memory.states):
                state_BC1 = state_LC[layer_idx, :, None].expand(batch_size, -1, -1)
                self.update_conv_state(state_BC1, layer_idx, state_idx=state_idx, conv_kernel_size=1)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return super().get_seq_length(layer_idx) - self.num_slots_in_front

    def get_query_offset(self, layer_idx: int = 0) -> int:
        return super().get_seq_length(layer_idx)
