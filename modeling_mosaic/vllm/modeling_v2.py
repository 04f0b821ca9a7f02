"""A Memory Mosaic v2 as a model of vLLM: the same computation as `../modeling_mosaic_v2.py`.

All but its parts is that of the first model.
"""

from collections.abc import Iterable

import torch
from torch import nn

from .memories_v2 import ParallelV2ContextualMemory, ParallelV2PersistentMemory
from .modeling import MosaicBlock, MosaicForCausalLM


class MosaicV2Block(MosaicBlock):
    contextual_class = ParallelV2ContextualMemory
    persistent_class = ParallelV2PersistentMemory

    @staticmethod
    def make_norm(config) -> nn.Module:
        return nn.RMSNorm(config.hidden_size, config.rms_norm_eps)


class MosaicV2ForCausalLM(MosaicForCausalLM):
    """A Memory Mosaic v2 that predicts the next token."""

    block_class = MosaicV2Block

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        """As transformers does: a model without long-term memory may come from the weights of one that has
        it."""
        if not self.config.use_long_memory:
            weights = ((name, weight) for name, weight in weights if ".long_memory." not in name)
        return super().load_weights(weights)
