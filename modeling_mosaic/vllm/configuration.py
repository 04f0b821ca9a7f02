"""What vLLM is told about Memory Mosaics before it builds one: sizes of its caches, and what to refuse."""

from vllm import ModelRegistry
from vllm.config import CompilationConfig, VllmConfig
from vllm.model_executor.models.config import MODELS_CONFIG_MAP, VerifyAndUpdateConfig
from vllm.transformers_utils.model_arch_config_convertor import (
    MODEL_ARCH_CONFIG_CONVERTORS,
    ModelArchConfigConvertorBase,
)

from ..configuration_mosaic import MosaicConfig
from ..configuration_mosaic_v2 import MosaicV2Config

# Those that vLLM's attention on CPUs has; they suit its kernels for GPUs, which want multiples of 8.
HEAD_SIZES = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
ARCHITECTURE = "MosaicForCausalLM"
# The operations of `modeling.py`, which depend on the requests of a step.
OPERATIONS = ("vllm::mosaic_store_pairs", "vllm::mosaic_average_queries")


def padded_head_size(config: MosaicConfig) -> int:
    """The head size in vLLM's cache: the model's, one dimension that hides the dummy slot, and a filling.

    Raises:
        ValueError: if no head size of vLLM is large enough.
    """
    head_dim = config.hidden_size // config.num_attention_heads
    for size in HEAD_SIZES:
        if size > head_dim:
            return size
    raise ValueError(f"vLLM takes heads of at most {HEAD_SIZES[-1] - 1} dimensions, not {head_dim}")


class MosaicArchitecture(ModelArchConfigConvertorBase):
    """Sizes of the first model."""

    def get_head_size(self) -> int:
        return padded_head_size(self.hf_text_config)


class MosaicV2Architecture(ModelArchConfigConvertorBase):
    """Refuses the second model, whose two memories a layer have no counterpart in vLLM's cache."""

    def __init__(self, *args, **kwargs):
        raise ValueError(
            "vLLM serves the first Memory Mosaic (model_type 'mosaic') only, not 'mosaic_v2'; "
            "generate() serves both"
        )


class MosaicChecks(VerifyAndUpdateConfig):
    """Refuses at once what the model does not do."""

    @classmethod
    def verify_and_update_config(cls, vllm_config: VllmConfig) -> None:
        """
        Raises:
            ValueError: naming the option.
        """
        parallel, model = vllm_config.parallel_config, vllm_config.model_config
        refused = {
            "LoRA (enable_lora)": vllm_config.lora_config is not None,
            "speculative decoding (speculative_config)": vllm_config.speculative_config is not None,
            f"quantization={model.quantization!r}": model.quantization is not None,
            f"pipeline_parallel_size={parallel.pipeline_parallel_size}": parallel.pipeline_parallel_size > 1,
        }
        for option, is_asked in refused.items():
            if is_asked:
                raise ValueError(f"Memory Mosaics in vLLM do not support {option}")
        size = parallel.tensor_parallel_size
        for name in ("num_attention_heads", "num_persistent_heads"):
            if (heads := getattr(model.hf_config, name)) % size:
                raise ValueError(f"tensor_parallel_size ({size}) must divide {name} ({heads})")


def register_configurations() -> None:
    """Enters all of this, and the model's name, into vLLM's tables."""
    MODEL_ARCH_CONFIG_CONVERTORS[MosaicConfig.model_type] = MosaicArchitecture
    MODEL_ARCH_CONFIG_CONVERTORS[MosaicV2Config.model_type] = MosaicV2Architecture
    MODELS_CONFIG_MAP[ARCHITECTURE] = MosaicChecks
    # Where graphs that are compiled or recorded piece by piece are cut, as they are at attention.
    attention_ops = CompilationConfig._attention_ops
    attention_ops.extend(name for name in OPERATIONS if name not in attention_ops)
    if ARCHITECTURE not in ModelRegistry.get_supported_archs():
        ModelRegistry.register_model(ARCHITECTURE, f"{__package__}.modeling:{ARCHITECTURE}")
