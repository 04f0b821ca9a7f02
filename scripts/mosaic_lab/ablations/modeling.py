"""A Memory Mosaic v2 that does one thing as the first model does.

Each part is the second model's with a module exchanged before weights are initialised. The fourth change, the
long-term memory beside the short-term one, is taken back by a plain config: `use_long_memory` false, and
`short_memory_size` as large as the longest context.
"""

import torch
from huggingface_hub.dataclasses import strict
from torch import nn
from transformers import initialization as init

from modeling_mosaic.configuration_mosaic import MosaicConfig
from modeling_mosaic.configuration_mosaic_v2 import MosaicV2Config
from modeling_mosaic.memory_norms import SCALAR_GAIN
from modeling_mosaic.modeling_mosaic import MosaicPersistentMemory, MosaicPreTrainedModel
from modeling_mosaic.modeling_mosaic_v2 import (
    MosaicV2Block,
    MosaicV2ForCausalLM,
    MosaicV2KeyNorm,
    MosaicV2Model,
    MosaicV2PreTrainedModel,
)

BANDWIDTH, GATES, SWIGLU = CHANGES = ("bandwidth", "gates", "swiglu")
# Where the first model starts the log of alpha_phi.
INITIAL_LOG_KEY_SCALE = 1.0


@strict
class AblatedMosaicV2Config(MosaicV2Config):
    """Configuration of [`AblatedMosaicV2ForCausalLM`]: that of a Memory Mosaic v2, and what is taken back.

    Args:
        taken_back (`str`, *optional*): `bandwidth`, `gates` or `swiglu`; nothing if `None`. With `swiglu`,
            `intermediate_size` is the number of pairs that each persistent unit stores.
    """

    model_type = "mosaic_v2_ablated"
    # Its code does not travel.
    _auto_class = None

    taken_back: str | None = None

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        del self.auto_map, self.model_file

    def validate_architecture(self) -> None:
        """Checks `taken_back`, and what the second model checks."""
        super().validate_architecture()
        if self.taken_back not in (None, *CHANGES):
            raise ValueError(f"taken_back must be one of {', '.join(CHANGES)}, not {self.taken_back!r}")


class ConstantBandwidthNorm(MosaicV2KeyNorm):
    """Keys as in the second model, asked with a beta that does not depend on the number of pairs.

    `beta = alpha_phi^2`, learned for each head as the first model learns alpha_phi: the scalar is stored
    divided by `SCALAR_GAIN`, and starts at alpha_phi = e.
    """

    def __init__(self, num_heads: int):
        super().__init__(num_heads)
        # beta_1 = 0, and an exponent that no longer counts.
        for name in ("log_beta_1", "exponent"):
            delattr(self, name)
            self.register_buffer(name, torch.empty(num_heads), persistent=False)

    def derive(self, log_key_scale_H, log_beta_1_H, exponent_H):
        return super().derive(2 * SCALAR_GAIN * log_key_scale_H, log_beta_1_H, exponent_H)


class NoGain(nn.Module):
    """Gains of 1, in place of `W_g x`."""

    def __init__(self, num_heads: int):
        super().__init__()
        self.num_heads = num_heads

    def forward(self, hidden_nC: torch.Tensor) -> torch.Tensor:
        """Log gains `(tokens, heads)`, all 0."""
        return hidden_nC.new_zeros(hidden_nC.shape[0], self.num_heads)


class ConstantLeak(nn.Module):
    """A learned leak for each head, in place of `W_lambda x`.

    The parameter is called a norm as in the first model: the Trainer spares what is called so from weight
    decay.
    """

    def __init__(self, num_heads: int):
        super().__init__()
        self.leak_norm = nn.Parameter(torch.empty(num_heads))

    def forward(self, hidden_nC: torch.Tensor) -> torch.Tensor:
        """Leaks in nats per token, `(tokens, heads)`, of either sign, as those of the second model."""
        return (SCALAR_GAIN * self.leak_norm).to(hidden_nC.dtype).expand(hidden_nC.shape[0], -1)


class TrainedPairsBlock(MosaicV2Block):
    """A block with the first model's persistent memory, whose keys are averages and need the masks."""

    def forward(self, hidden_states, masks, cache=None, **kwargs):
        if cache is not None:
            raise ValueError(
                "use_cache must be False: trained pairs keep no state in a cache of the second model"
            )
        recalled, _ = self.contextual_memory(self.contextual_norm(hidden_states), masks=masks, **kwargs)
        hidden_states = hidden_states + recalled
        recalled = self.persistent_memory(self.persistent_norm(hidden_states), masks | {"elapsed": None})
        return hidden_states + recalled


def take_back(block: MosaicV2Block, config: AblatedMosaicV2Config, layer_idx: int) -> None:
    """Exchanges the modules of a block that do what the config takes back."""
    memory, num_heads = block.contextual_memory, config.num_attention_heads
    for part in filter(None, (memory.short_memory, memory.long_memory)):
        if config.taken_back == BANDWIDTH:
            part.key_norm = ConstantBandwidthNorm(num_heads)
        elif config.taken_back == GATES:
            part.gain_proj, part.leak_proj = NoGain(num_heads), ConstantLeak(num_heads)
    if config.taken_back == SWIGLU:
        block.__class__ = TrainedPairsBlock
        block.persistent_memory = MosaicPersistentMemory(first_config(config), layer_idx)
        for module in block.persistent_memory.modules():
            module.is_of_first_model = True


def first_config(config: AblatedMosaicV2Config) -> MosaicConfig:
    """The config of a first model with persistent memories as large as they are to be here."""
    return MosaicConfig(
        hidden_size=config.hidden_size,
        num_attention_heads=config.num_attention_heads,
        persistent_memory_size=config.intermediate_size,
        attention_dropout=config.attention_dropout,
        hidden_dropout=config.hidden_dropout,
    )


class AblatedMosaicV2PreTrainedModel(MosaicV2PreTrainedModel):
    """Initialises exchanged modules as the first model does."""

    config_class = AblatedMosaicV2Config

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if getattr(module, "is_of_first_model", False):
            MosaicPreTrainedModel._init_weights(self, module)
        elif isinstance(module, ConstantBandwidthNorm):
            init.constant_(module.log_beta_0, INITIAL_LOG_KEY_SCALE / SCALAR_GAIN)
            init.constant_(module.log_beta_1, -torch.inf)
            init.zeros_(module.exponent)
        elif isinstance(module, ConstantLeak):
            init.copy_(module.leak_norm, torch.linspace(0.5, 5, len(module.leak_norm)) / SCALAR_GAIN)
        else:
            super()._init_weights(module)


class AblatedMosaicV2Model(AblatedMosaicV2PreTrainedModel, MosaicV2Model):
    """A Memory Mosaic v2 without a head, with one change taken back."""

    _auto_class = None

    def post_init(self):
        for layer_idx, block in enumerate(self.layers):
            take_back(block, self.config, layer_idx)
        super().post_init()


class AblatedMosaicV2ForCausalLM(AblatedMosaicV2PreTrainedModel, MosaicV2ForCausalLM):
    """A Memory Mosaic v2 that predicts the next token, with one change taken back."""

    _auto_class = None
    _body_class = AblatedMosaicV2Model
