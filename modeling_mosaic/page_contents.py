"""What the blocks of `continuous_batching.py` hold of each model.

A block is made of pages, each as large as the keys and values of its tokens in one memory. Those of layer 0
come first, then those of layer 1, and so on; each holds keys, then values. Behind the pages of all layers lie
the states after the block's last token, in full precision whatever that of keys and values.

Shapes: n tokens of all blocks, or blocks; L layers, C hidden size, E size of a state; others as in
`continuous_batching.py`.
"""

import math
from typing import TYPE_CHECKING

import torch

from .configuration_mosaic import MosaicConfig
from .configuration_mosaic_v2 import MosaicV2Config
from .memory_masks import MemoryMasks
from .memory_masks_v2 import WINDOW_KEYS, MemoryMasksV2, TokenNumbers, fill_masks, make_mask, see_older
from .modeling_mosaic_v2 import LONG_STATES, SHORT_STATES, WINDOW_VALUES

if TYPE_CHECKING:
    from transformers.generation.continuous_batching import PagedAttentionCache

# transformers' name for layers whose pages keep all tokens.
LAYER_TYPE = "full_attention"
# What a cache stores by `update`. States that are windows of pairs go by their numbers.
KEYS, VALUES = "keys", "values"


class PageContents:
    """What blocks hold of a model.

    Args:
        config (`MosaicConfig` or `MosaicV2Config`): the model's config.
        columns (`tuple`): what the pages of a layer hold of each token, in this order: keys and values of
            memories, each as wide as the hidden states.
        state_sizes (`dict[int, int]`): sizes of the states, by their numbers; without windows.
    """

    def __init__(self, config, columns: tuple[str | int, ...], state_sizes: dict[int, int]):
        self.config = config
        self.columns = columns
        self.state_sizes = state_sizes

    def count_pages(self, page_size: int, dtype: torch.dtype) -> int:
        """Pages of a block of `page_size` tokens with keys and values of type `dtype`."""
        page_bytes = 2 * page_size * self.config.hidden_size * dtype.itemsize
        state_bytes = sum(self.state_sizes.values()) * torch.promote_types(dtype, torch.float32).itemsize
        num_layers = self.config.num_hidden_layers
        return num_layers * len(self.columns) // 2 + math.ceil(num_layers * state_bytes / page_bytes)

    def view_column(self, pages: "PagedAttentionCache", name: str | int, layer_idx: int) -> torch.Tensor:
        """What all blocks hold of a column, `(n, hidden)`: row i is the token with transformers' index i."""
        number = layer_idx * len(self.columns) + self.columns.index(name)
        rows_nC = pages.cache_tensor.view(pages.dtype).view(-1, self.config.hidden_size)
        return rows_nC[number * pages.cache_allocators[LAYER_TYPE].tokens_per_page :]

    def view_states(self, pages: "PagedAttentionCache") -> list[dict[int, torch.Tensor]]:
        """The states in all blocks, of each layer by their numbers, `(blocks, size)`."""
        allocator = pages.cache_allocators[LAYER_TYPE]
        num_layers, sizes = self.config.num_hidden_layers, list(self.state_sizes.values())
        dtype = torch.promote_types(pages.dtype, torch.float32)
        first = num_layers * len(self.columns) // 2 * allocator.bytes_per_page
        num_bytes = num_layers * sum(sizes) * dtype.itemsize
        blocks = pages.cache_tensor.view(-1, allocator.bytes_per_block)[:, first : first + num_bytes]
        states_LnE = blocks.view(dtype).unflatten(1, (num_layers, -1)).unbind(1)
        return [
            dict(zip(self.state_sizes, states_nE.split(sizes, 1), strict=True)) for states_nE in states_LnE
        ]

    def make_masks(self, inputs_embeds: torch.Tensor, tokens: TokenNumbers) -> MemoryMasks | MemoryMasksV2:
        """The masks for new tokens `(batch, time, hidden)` with these numbers in their requests."""
        raise NotImplementedError


class MosaicContents(PageContents):
    """What blocks hold of a first model."""

    def __init__(self, config: MosaicConfig):
        sizes = dict.fromkeys(range(config.number_of_conv_states), config.hidden_size)
        super().__init__(config, (KEYS, VALUES), sizes)

    def make_masks(self, inputs_embeds, tokens):
        # Pairs wait for the next token only.
        slots = make_mask(self.config, inputs_embeds, see_older(tokens, self.config.stored_delay))
        recall_BT = tokens.query_bT > 0
        return MemoryMasks(
            slots=slots, recall=recall_BT, keep=None, start=None, cu_seq_lens=None, elapsed=None
        )


class MosaicV2Contents(PageContents):
    """What blocks hold of a second model.

    The short-term memory's pairs are stored of all tokens, since a request may go on from any of them, though
    only the latest ones are read.
    """

    def __init__(self, config: MosaicV2Config):
        columns, first_states = (WINDOW_KEYS, WINDOW_VALUES), [SHORT_STATES]
        if config.use_long_memory:
            columns, first_states = (KEYS, VALUES, *columns), [SHORT_STATES, LONG_STATES]
        # An average with its log scale, a key and a raw value.
        sizes = (config.hidden_size + config.num_attention_heads, config.hidden_size, config.hidden_size)
        numbered = {first + number: size for first in first_states for number, size in enumerate(sizes)}
        super().__init__(config, columns, numbered)

    def make_masks(self, inputs_embeds, tokens):
        return fill_masks(
            self.config,
            inputs_embeds,
            tokens,
            num_short=None,
            num_long=None,
            delay=self.config.long_memory_delay,
            continues=True,
            num_cached=tokens.window_bW.shape[1] - tokens.query_bT.shape[1],
            num_kept=self.config.stored_window,
            keep=None,
            # Of requests that begin, states are zeros.
            start=tokens.query_bT == 0,
        )


# By model type.
PAGE_CONTENTS = {"mosaic": MosaicContents, "mosaic_v2": MosaicV2Contents}
