"""Memory Mosaics (arXiv 2405.06394 and 2507.03285) for transformers.

Importing this makes the Auto classes know them.
"""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from .configuration_mosaic import MosaicConfig
from .configuration_mosaic_v2 import MosaicV2Config
from .modeling_mosaic import (
    MosaicForCausalLM,
    MosaicForSequenceClassification,
    MosaicForTokenClassification,
    MosaicModel,
    MosaicPreTrainedModel,
)
from .modeling_mosaic_v2 import (
    MosaicV2ForCausalLM,
    MosaicV2ForSequenceClassification,
    MosaicV2ForTokenClassification,
    MosaicV2Model,
    MosaicV2PreTrainedModel,
)

AutoConfig.register("mosaic", MosaicConfig)
AutoModel.register(MosaicConfig, MosaicModel)
AutoModelForCausalLM.register(MosaicConfig, MosaicForCausalLM)
AutoModelForSequenceClassification.register(MosaicConfig, MosaicForSequenceClassification)
AutoModelForTokenClassification.register(MosaicConfig, MosaicForTokenClassification)

AutoConfig.register("mosaic_v2", MosaicV2Config)
AutoModel.register(MosaicV2Config, MosaicV2Model)
AutoModelForCausalLM.register(MosaicV2Config, MosaicV2ForCausalLM)
AutoModelForSequenceClassification.register(MosaicV2Config, MosaicV2ForSequenceClassification)
AutoModelForTokenClassification.register(MosaicV2Config, MosaicV2ForTokenClassification)

__all__ = [
    "MosaicConfig",
    "MosaicForCausalLM",
    "MosaicForSequenceClassification",
    "MosaicForTokenClassification",
    "MosaicModel",
    "MosaicPreTrainedModel",
    "MosaicV2Config",
    "MosaicV2ForCausalLM",
    "MosaicV2ForSequenceClassification",
    "MosaicV2ForTokenClassification",
    "MosaicV2Model",
    "MosaicV2PreTrainedModel",
]
