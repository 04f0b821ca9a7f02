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
# The models: their configurations, and the modules that have them.
MODELS = {
    "MosaicForCausalLM": (MosaicConfig, "modeling"),
    "MosaicV2ForCausalLM": (MosaicV2Config, "modeling_v2"),
}
# What several processes share.
SHARED_FIELDS = ("num_attention_heads", "num_persistent_heads", "intermediate_size")
# The operations of `modeling.py`, which depend on the requests of a step.
OPERATIONS = ("vllm::mosaic_store_pairs", "vllm::mosaic_average_queries")


def padded_head_size(config: MosaicConfig | MosaicV2Config) -> int:
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
    """Sizes of the models."""

    def get_head_size(self) -> int:
        return padded_head_size(self.hf_text_config)


class MosaicChecks(VerifyAndUpdateConfig):
    """Refuses at once what the models do not do."""

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
        for name in SHARED_FIELDS:
            if (number := getattr(model.hf_config, name, size)) % size:
                raise ValueError(f"tensor_parallel_size ({size}) must divide {name} ({number})")


def register_configurations() -> None:
    """Enters all of this, and the names of the models, into vLLM's tables."""
    # Where graphs that are compiled or recorded piece by piece are cut, as they are at attention.
    attention_ops = CompilationConfig._attention_ops
    attention_ops.extend(name for name in OPERATIONS if name not in attention_ops)
    for architecture, (config_class, module) in MODELS.items():
        MODEL_ARCH_CONFIG_CONVERTORS[config_class.model_type] = MosaicArchitecture
        MODELS_CONFIG_MAP[architecture] = MosaicChecks
        if architecture not in ModelRegistry.get_supported_archs():
            ModelRegistry.register_model(architecture, f"{__package__}.{module}:{architecture}")
