"""Configuration of a Memory Mosaic language model."""

import difflib
import math

from transformers import GenerationConfig, PreTrainedConfig
from transformers.utils import logging

logger = logging.get_logger(__name__)

# What `from_pretrained`, `save_pretrained` and the base class pass along besides the fields.
_LIBRARY_FIELDS = {
    "attn_implementation",
    "auto_map",
    "compression_config",
    "experts_implementation",
    "model_type",
    "name_or_path",
    "num_labels",
    "output_attentions",
    "per_layer_config",
    "quantization_config",
    "tie_last_hidden_states",
    "torch_dtype",
}
_AUTO_MAP = {
    "AutoConfig": "configuration_mosaic.MosaicConfig",
    "AutoModel": "modeling_mosaic.MosaicModel",
    "AutoModelForCausalLM": "modeling_mosaic.MosaicForCausalLM",
    "AutoModelForSequenceClassification": "modeling_mosaic.MosaicForSequenceClassification",
    "AutoModelForTokenClassification": "modeling_mosaic.MosaicForTokenClassification",
}
_SIZES = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_persistent_heads",
    "persistent_memory_size",
    "num_persistent_banks",
    "max_position_embeddings",
)
_NUMBERS = ("layer_norm_eps", "attention_dropout", "hidden_dropout", "logit_scale", "max_log_key_scale")
_SPECIAL_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")
# The square of a key scale, by which persistent memories are asked, has to be a float32.
_LARGEST_LOG_KEY_SCALE = 44


class MosaicConfig(PreTrainedConfig):
    r"""
    Configuration of [`MosaicModel`], the Memory Mosaic of arXiv 2405.06394. The defaults are the paper's
    12-block model with the GPT-2 vocabulary.

    Args:
        vocab_size (`int`): number of tokens in the vocabulary.
        hidden_size (`int`): width C of the residual stream; a multiple of both head counts.
        num_hidden_layers (`int`): number of blocks.
        num_attention_heads (`int`): contextual memory units a block; each has `hidden_size /
            num_attention_heads` dimensions.
        num_persistent_heads (`int`, *optional*): persistent memory units a block; `num_attention_heads` if
            `None`.
        persistent_memory_size (`int`, *optional*): pairs M that each persistent unit stores; 3.5 *
            `hidden_size` if `None`, which gives a block the size of GPT-2's (paper, footnote 4).
        num_persistent_banks (`int`): independent sets of M pairs a persistent unit; their answers are
            averaged.
        use_bias (`bool`): whether linear layers and layer norms have biases.
        layer_norm_eps (`float`): epsilon of the layer norms.
        attention_dropout (`float`): dropout on the weights with which memories mix their values.
        hidden_dropout (`float`): dropout on what the contextual and the persistent memories add to the
            residual stream.
        logit_scale (`float`, *optional*): factor on the logits; 1 / sqrt(`hidden_size`) if `None`.
        max_log_key_scale (`float`): the log of a key scale alpha_phi, in nats, is clamped here from above;
            within +-44.
        tie_word_embeddings (`bool`): whether the head shares its weight with the embedding.
        max_position_embeddings (`int`): context the model was trained with, in tokens, for tools that ask.
            There are no positions in a Memory Mosaic, and no limit.
        use_cache (`bool`): whether the model returns its memories for continuation by default.
        bos_token_id, eos_token_id (`int`, *optional*): GPT-2's end-of-text token by default.
        pad_token_id (`int`, *optional*): padding token.

    Raises:
        ValueError: for an unknown field, a size below 1, a `hidden_size` that is no multiple of a head count,
            a number that is not finite, a probability outside [0, 1), or a token id below 0; the message
            names the field and the value.

    Example:

    ```python
    >>> from modeling_mosaic import MosaicConfig, MosaicForCausalLM

    >>> model = MosaicForCausalLM(MosaicConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=4))
    ```
    """

    model_type = "mosaic"
    _auto_class = "AutoConfig"
    keys_to_ignore_at_inference = ["cache", "past_key_values"]
    # What a cache keeps of each layer besides its pairs; `memory_state.py` names the states.
    number_of_conv_states = 4

    vocab_size: int = 50257
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    num_persistent_heads: int | None = None
    persistent_memory_size: int | None = None
    num_persistent_banks: int = 1
    use_bias: bool = False
    layer_norm_eps: float = 1e-5
    attention_dropout: float = 0.05
    hidden_dropout: float = 0.05
    logit_scale: float | None = None
    max_log_key_scale: float = 5.0
    tie_word_embeddings: bool = True
    max_position_embeddings: int = 512
    use_cache: bool = True
    bos_token_id: int | None = 50256
    eos_token_id: int | list[int] | None = 50256
    pad_token_id: int | None = None

    def __post_init__(self, **kwargs):
        self._refuse_unknown_fields(kwargs)
        if self.num_persistent_heads is None:
            self.num_persistent_heads = self.num_attention_heads
        if isinstance(self.hidden_size, int) and self.hidden_size > 0:
            if self.persistent_memory_size is None:
                self.persistent_memory_size = 7 * self.hidden_size // 2
            if self.logit_scale is None:
                self.logit_scale = 1 / math.sqrt(self.hidden_size)
        self.validate_architecture()
        # Whatever is saved, its folder loads all of these as remote code.
        self.auto_map = dict(_AUTO_MAP)
        super().__post_init__(**kwargs)

    @property
    def layer_types(self) -> list[str]:
        """What transformers' caches hold for each layer: keys, values and `number_of_conv_states` states."""
        return ["hybrid"] * self.num_hidden_layers

    def _refuse_unknown_fields(self, kwargs) -> None:
        known = _LIBRARY_FIELDS | GenerationConfig._get_default_generation_params().keys()
        for name, value in kwargs.items():
            if name in known or name.startswith("_"):
                continue
            close = difflib.get_close_matches(name, self.__dataclass_fields__, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            message = f"MosaicConfig has no field {name!r} (given {value!r}){hint}"
            # A file that transformers wrote may hold what other tools have put into the config.
            if self.transformers_version is None:
                raise ValueError(message)
            logger.warning(message)

    def validate_architecture(self) -> None:
        """Raises a `ValueError` that names the first field with an impossible value."""
        for name in _SIZES:
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be an integer of at least 1, not {value!r}")
        for name in ("num_attention_heads", "num_persistent_heads"):
            if self.hidden_size % getattr(self, name):
                raise ValueError(
                    f"hidden_size ({self.hidden_size}) must be a multiple of {name} ({getattr(self, name)})"
                )
        for name in _NUMBERS:
            value = getattr(self, name)
            if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
                raise ValueError(f"{name} must be a finite number, not {value!r}")
        for name in ("use_bias", "tie_word_embeddings", "use_cache"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be True or False, not {getattr(self, name)!r}")
        for name in ("attention_dropout", "hidden_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1), not {getattr(self, name)!r}")
        for name in ("layer_norm_eps", "logit_scale"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)!r}")
        if abs(self.max_log_key_scale) > _LARGEST_LOG_KEY_SCALE:
            raise ValueError(
                f"max_log_key_scale must lie within +-{_LARGEST_LOG_KEY_SCALE}, not {self.max_log_key_scale}"
            )
        for name in _SPECIAL_TOKENS:
            value = getattr(self, name)
            ids = value if name == "eos_token_id" and isinstance(value, list) else [value]
            # No upper bound: vocabularies smaller than GPT-2's come with the default ids, and may grow later.
            if value is not None and not all(type(one) is int and one >= 0 for one in ids):
                raise ValueError(f"{name} must be a token id of at least 0, not {value!r}")


__all__ = ["MosaicConfig"]
