"""Memory Mosaics (arXiv 2405.06394 and 2507.03285) for transformers.

Importing this makes the Auto classes know them.
"""

from importlib import import_module

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


def _init_continuous_batching(self, *args, **kwargs):
    return import_module(f"{__name__}.continuous_batching").init_continuous_batching(self, *args, **kwargs)


# Not in the file of the model, which travels: it depends on what releases of transformers may change.
MosaicForCausalLM.init_continuous_batching = _init_continuous_batching

# What looks into memories, keeps, bounds and searches them is imported when it is asked for: models need none
# of it.
_LAZY = {
    "BoundedCache": "memories.bounded_cache",
    "MEASURES": "inspector.catalogue",
    "MemoryEdit": "inspector.edit",
    "MemoryRecord": "inspector.record",
    "MosaicMemory": "memories.portable_memory",
    "SearchedCache": "memories.searched_cache",
    "SlotStatistics": "inspector.slot_scan",
    "merge": "memories.portable_memory",
    "read": "memories.reading",
    "read_tokens": "memories.reading",
    "record_memories": "inspector.record",
    "scan_slots": "inspector.slot_scan",
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
    "MosaicV2Config",
    "MosaicV2ForCausalLM",
    "MosaicV2ForSequenceClassification",
    "MosaicV2ForTokenClassification",
    "MosaicV2Model",
    "MosaicV2PreTrainedModel",
    *_LAZY,
]
