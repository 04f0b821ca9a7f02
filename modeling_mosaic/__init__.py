"""Memory Mosaics (arXiv 2405.06394) for transformers. Importing this makes the Auto classes know them."""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from .bounded_cache import BoundedCache
from .configuration_mosaic import MosaicConfig
from .memory_reading import read, read_tokens
from .memory_search import SearchedCache
from .modeling_mosaic import (
    MosaicForCausalLM,
    MosaicForSequenceClassification,
    MosaicForTokenClassification,
    MosaicModel,
    MosaicPreTrainedModel,
)
from .portable_memory import MosaicMemory, merge

AutoConfig.register("mosaic", MosaicConfig)
AutoModel.register(MosaicConfig, MosaicModel)
AutoModelForCausalLM.register(MosaicConfig, MosaicForCausalLM)
AutoModelForSequenceClassification.register(MosaicConfig, MosaicForSequenceClassification)
AutoModelForTokenClassification.register(MosaicConfig, MosaicForTokenClassification)

__all__ = [
    "BoundedCache",
    "MosaicConfig",
    "MosaicForCausalLM",
    "MosaicForSequenceClassification",
    "MosaicForTokenClassification",
    "MosaicMemory",
    "MosaicModel",
    "MosaicPreTrainedModel",
    "SearchedCache",
    "merge",
    "read",
    "read_tokens",
]
