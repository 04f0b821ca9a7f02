# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Configuration of a Memory Mosaic language model."""

import difflib
import math

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig
from transformers.utils import logging
from transformers.utils.type_validators import interval

logger = logging.get_logger(__name__)

_AUTO_MAP = {
    "AutoConfig": "configuration_mosaic.MosaicConfig",
    "AutoModel": "modeling_mosaic.MosaicModel",
    "AutoModelForCausalLM": "modeling_mosaic.MosaicForCausalLM",
    "AutoModelForSequenceClassification": "modeling_mosaic.MosaicForSequenceClassification",
    "AutoModelForTokenClassification": "modeling_mosaic.MosaicForTokenClassification",
}
# Saved configs hold these besides the fields of their class.
_OF_THE_LIBRARY = {"auto_map", "compression_config", "model_file", "model_type", "quantization_config"}
# Names more alike than this are taken for misspelt.
_LIKENESS = 0.8


class FieldChecks:
    """What the configurations of all Memory Mosaics check alike."""

    def _refuse_misspelt(self, kwargs) -> None:
        # A file that transformers wrote may hold what other tools have put into the config.
        for name, value in kwargs.items() if self.transformers_version is None else ():
            close = difflib.get_close_matches(name, type(self).__annotations__, n=1, cutoff=_LIKENESS)
            if close:
                raise ValueError(
                    f"{type(self).__name__} has no field {name!r} (given {value!r}); did you mean {close[0]}?"
                )

    def _warn_of_unknown(self, kwargs) -> None:
        for name in kwargs.keys() & self.__dict__.keys() - _OF_THE_LIBRARY - vars(PreTrainedConfig).keys():
            # Not the library's private ones, which loading passes in transformers 5.16.
            if not name.startswith("_"):
                logger.warning(f"{type(self).__name__} has no field {name!r} (given {kwargs[name]!r})")

    def _check_fractions(self, norm_eps: str) -> None:
        """Checks what validators of single fields cannot, as `interval(min=0)` of transformers 5.16 has no
        bound there."""
        for name in ("attention_dropout", "hidden_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, not {getattr(self, name)}")
        if not 0 < getattr(self, norm_eps) <= 1:
            raise ValueError(f"{norm_eps} must be above 0 and at most 1, not {getattr(self, norm_eps)}")
        if not 0 < self.logit_scale < math.inf:
            raise ValueError(f"logit_scale must be finite and above 0, not {self.logit_scale}")

    def _check_heads(self, *names: str) -> None:
        for name in names:
            if self.hidden_size % getattr(self, name):
                raise ValueError(
                    f"hidden_size ({self.hidden_size}) must be a multiple of {name} ({getattr(self, name)})"
                )

    def validate_token_ids(self) -> None:
        """Checks that special tokens are token ids. Those above the vocabulary pass: it may still grow."""
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            value = getattr(self, name)
            if value is not None and min(value if isinstance(value, list) else [value], default=0) < 0:
                raise ValueError(f"{name} must be at least 0, not {value}")


# trf-ignore: TRF057, as in `modeling_mosaic.py`.
@strict
class MosaicConfig(FieldChecks, PreTrainedConfig):
    r"""
    Configuration of [`MosaicModel`], the Memory Mosaic of arXiv 2405.06394. The defaults are the paper's
    12-block model with the GPT-2 vocabulary, but for `logit_scale`.

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
        logit_scale (`float`, *optional*): factor on the logits; that of the paper's own code, 1 /
            sqrt(`hidden_size`), if `None`.
        max_log_key_scale (`float`): the log of a key scale alpha_phi, in nats, is clamped here from above;
            within +-40.
        tie_word_embeddings (`bool`): whether the head shares its weight with the embedding.
        max_position_embeddings (`int`): context the model was trained with, in tokens, for tools that ask.
            There are no positions in a Memory Mosaic, and no limit.
        use_cache (`bool`): whether the model returns its memories for continuation by default.
        bos_token_id, eos_token_id (`int`, *optional*): GPT-2's end-of-text token by default.
        pad_token_id (`int`, *optional*): padding token.

    Raises:
        ValueError: for a misspelt field; other unknown ones are kept, with a warning.
        StrictDataclassError: for a value of another type or out of range, or a `hidden_size` that is no
            multiple of a head count; the message names the field and the value.

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
    # How many tokens old a stored pair is when queries begin to see it, and how many pairs a cache holds of a
    # short-term memory, which only the second model has.
    stored_delay, stored_window = 1, 0

    vocab_size: int = interval(min=1)(default=50257)
    hidden_size: int = interval(min=1)(default=768)
    num_hidden_layers: int = interval(min=1)(default=12)
    num_attention_heads: int = interval(min=1)(default=12)
    num_persistent_heads: int | None = None
    persistent_memory_size: int | None = None
    num_persistent_banks: int = interval(min=1)(default=1)
    use_bias: bool = False
    layer_norm_eps: int | float = 1e-5
    attention_dropout: int | float = 0.05
    hidden_dropout: int | float = 0.05
    logit_scale: int | float | None = 1.0
    # The square of its exponential, the scale of persistent queries, must stay finite in float32.
    max_log_key_scale: int | float = interval(min=-40, max=40)(default=5.0)
    tie_word_embeddings: bool = True
    max_position_embeddings: int = interval(min=1)(default=512)
    use_cache: bool = True
    bos_token_id: int | None = 50256
    eos_token_id: int | list[int] | None = 50256
    pad_token_id: int | None = None

    def __post_init__(self, **kwargs):
        self._refuse_misspelt(kwargs)
        if self.num_persistent_heads is None:
            self.num_persistent_heads = self.num_attention_heads
        if self.persistent_memory_size is None:
            self.persistent_memory_size = max(1, 7 * self.hidden_size // 2)
        if self.logit_scale is None:
            self.logit_scale = 1 / math.sqrt(self.hidden_size)
        # Whatever is saved, its folder loads all of these as remote code.
        self.auto_map = dict(_AUTO_MAP)
        # And mlx-lm loads this.
        self.model_file = "mlx_mosaic.py"
        super().__post_init__(**kwargs)
        self._warn_of_unknown(kwargs)

    @property
    def layer_types(self) -> list[str]:
        """What transformers' caches hold for each layer: keys, values and `number_of_conv_states` states."""
        return ["hybrid"] * self.num_hidden_layers

    @property
    def stored_shape(self) -> tuple[int, int]:
        """Heads and head size of the keys and values that a cache holds of each token."""
        return self.num_attention_heads, self.hidden_size // self.num_attention_heads

    def validate_architecture(self) -> None:
        """Checks what validators of single fields cannot: fields that depend on each other, or were `None` at
        first."""
        self._check_fractions("layer_norm_eps")
        for name in ("num_persistent_heads", "persistent_memory_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        self._check_heads("num_attention_heads", "num_persistent_heads")


__all__ = ["MosaicConfig"]
