"""Memory Mosaics (arXiv 2405.06394) for transformers. Importing this makes the Auto classes know them."""

from importlib import import_module

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from .configuration_mosaic import MosaicConfig
from .modeling_mosaic import (
    MosaicForCausalLM,
    MosaicForSequenceClassification,
    MosaicForTokenClassification,
    MosaicModel,
    MosaicPreTrainedModel,
)

AutoConfig.register("mosaic", MosaicConfig)
AutoModel.register(MosaicConfig, MosaicModel)
AutoModelForCausalLM.register(MosaicConfig, MosaicForCausalLM)
AutoModelForSequenceClassification.register(MosaicConfig, MosaicForSequenceClassification)
AutoModelForTokenClassification.register(MosaicConfig, MosaicForTokenClassification)

# What looks into memories, keeps, bounds and searches them is imported when it is asked for: models need none
# of it.
_LAZY = {
    "BoundedCache": "memories.bounded_cache",
    "MEASURES": "inspector.catalogue",
    "MemoryEdit": "inspector.edit",
    "MemoryRecord": "inspector.record",
    "MosaicMemory": "memories.portable_memory",
    "SearchedCache": "memories.searched_cache",
    "merge": "memories.portable_memory",
    "read": "memories.reading",
    "read_tokens": "memories.reading",
    "record_memories": "inspector.record",
}


def __getattr__(name: str):
    if name in _LAZY:
        return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "MosaicConfig",
    "MosaicForCausalLM",
    "MosaicForSequenceClassification",
    "MosaicForTokenClassification",
    "MosaicModel",
    "MosaicPreTrainedModel",
    *_LAZY,
]
