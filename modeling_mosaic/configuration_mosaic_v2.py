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
"""Configuration of a Memory Mosaic v2, the language model of arXiv 2507.03285."""

import math

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig
from transformers.utils.type_validators import interval

from .configuration_mosaic import FieldChecks

_AUTO_MAP = {
    "AutoConfig": "configuration_mosaic_v2.MosaicV2Config",
    "AutoModel": "modeling_mosaic_v2.MosaicV2Model",
    "AutoModelForCausalLM": "modeling_mosaic_v2.MosaicV2ForCausalLM",
    "AutoModelForSequenceClassification": "modeling_mosaic_v2.MosaicV2ForSequenceClassification",
    "AutoModelForTokenClassification": "modeling_mosaic_v2.MosaicV2ForTokenClassification",
}
# Widths that matrix kernels like.
_WIDTH_MULTIPLE = 64


# trf-ignore: TRF057, as in `modeling_mosaic.py`.
@strict
class MosaicV2Config(FieldChecks, PreTrainedConfig):
    r"""
    Configuration of [`MosaicV2Model`], the Memory Mosaic of arXiv 2507.03285. The defaults are a model of the
    width and depth of GPT-2; the paper's models are the presets `mosaic-v2-small` and `mosaic-v2-large`.

    Args:
        vocab_size (`int`): number of tokens in the vocabulary.
        hidden_size (`int`): width C of the residual stream; a multiple of the head count.
        intermediate_size (`int`, *optional*): width of the persistent memory, a SwiGLU; 8/3 of `hidden_size`,
            rounded up to a multiple of 64, if `None`.
        num_hidden_layers (`int`): number of blocks.
        num_attention_heads (`int`): memory units of a block's short-term memory, and again of its long-term
            memory; each has `hidden_size / num_attention_heads` dimensions.
        short_memory_size (`int`): pairs h that the short-term memory holds, the latest ones.
        long_memory_delay (`int`): the long-term memory holds all pairs but the latest m - 1: those up to
            t - m at token t. At inference; at most `short_memory_size` + 1, so that no pair is in neither.
        long_memory_delay_range (`list[int]`): least and largest m in training, where each forward pass draws
            its own.
        use_long_memory (`bool`): whether blocks have a long-term memory. A model that was trained with one
            loads without, and loses the half of the output projection that belongs to it.
        rms_norm_eps (`float`): epsilon of the root mean square norms.
        attention_dropout (`float`): dropout on the weights with which memories mix their values.
        hidden_dropout (`float`): dropout on what the contextual and the persistent memories add to the
            residual stream.
        logit_scale (`float`): factor on the logits.
        initializer_factor (`float`): factor on the standard deviations of the paper's table 6.
        tie_word_embeddings (`bool`): whether the head shares its weight with the embedding.
        max_position_embeddings (`int`): context the model was trained with, in tokens, for tools that ask.
            There are no positions in a Memory Mosaic, and no limit.
        use_cache (`bool`): whether the model returns its memories for continuation by default.
        bos_token_id, eos_token_id (`int`, *optional*): GPT-2's end-of-text token by default.
        pad_token_id (`int`, *optional*): padding token.

    Raises:
        ValueError: for a misspelt field; other unknown ones are kept, with a warning.
        StrictDataclassError: for a value of another type or out of range, or a `hidden_size` that is no
            multiple of the head count; the message names the field and the value.

    Example:

    ```python
    >>> from modeling_mosaic import MosaicV2Config, MosaicV2ForCausalLM

    >>> config = MosaicV2Config(hidden_size=64, num_hidden_layers=2, num_attention_heads=4)
    >>> model = MosaicV2ForCausalLM(config)
    ```
    """

    model_type = "mosaic_v2"
    _auto_class = "AutoConfig"
    keys_to_ignore_at_inference = ["cache", "past_key_values"]

    vocab_size: int = interval(min=1)(default=50257)
    hidden_size: int = interval(min=1)(default=768)
    intermediate_size: int | None = None
    num_hidden_layers: int = interval(min=1)(default=12)
    num_attention_heads: int = interval(min=1)(default=12)
    short_memory_size: int = interval(min=2)(default=256)
    long_memory_delay: int = interval(min=1)(default=64)
    long_memory_delay_range: tuple[int, ...] | list[int] = (64, 256)
    use_long_memory: bool = True
    rms_norm_eps: int | float = 1e-5
    attention_dropout: int | float = 0.0
    hidden_dropout: int | float = 0.0
    logit_scale: int | float = 1.0
    initializer_factor: int | float = 1.0
    tie_word_embeddings: bool = False
    max_position_embeddings: int = interval(min=1)(default=512)
    use_cache: bool = True
    bos_token_id: int | None = 50256
    eos_token_id: int | list[int] | None = 50256
    pad_token_id: int | None = None

    def __post_init__(self, **kwargs):
        self._refuse_misspelt(kwargs)
        if self.intermediate_size is None:
            self.intermediate_size = math.ceil(8 * self.hidden_size / 3 / _WIDTH_MULTIPLE) * _WIDTH_MULTIPLE
        # As files hold it.
        self.long_memory_delay_range = list(self.long_memory_delay_range)
        # Whatever is saved, its folder loads all of these as remote code.
        self.auto_map = dict(_AUTO_MAP)
        # And mlx-lm loads this.
        self.model_file = "mlx_mosaic_v2.py"
        super().__post_init__(**kwargs)
        self._warn_of_unknown(kwargs)

    @property
    def layer_types(self) -> list[str]:
        """What transformers' caches hold for each layer: keys, values and `number_of_conv_states` states."""
        return ["hybrid"] * self.num_hidden_layers

    @property
    def number_of_conv_states(self) -> int:
        """What a cache keeps of each layer besides the pairs of the long-term memory; `modeling_mosaic_v2.py`
        names the states."""
        return 8 if self.use_long_memory else 5

    @property
    def stored_shape(self) -> tuple[int, int]:
        """Heads and head size of the keys and values that a cache holds of each token.

        Those of the long-term memory; without it, a single number, which tells that there was a token.
        """
        num_heads = self.num_attention_heads
        return (num_heads, self.hidden_size // num_heads) if self.use_long_memory else (1, 1)

    @property
    def stored_delay(self) -> int:
        """How many tokens old a stored pair is when queries begin to see it."""
        return self.long_memory_delay

    @property
    def stored_window(self) -> int:
        """How many pairs a cache holds of the short-term memory, besides the one to be completed."""
        return self.short_memory_size - 1

    def validate_architecture(self) -> None:
        """Checks what validators of single fields cannot: fields that depend on each other, or were `None` at
        first."""
        self._check_fractions("rms_norm_eps")
        if self.intermediate_size < 1:
            raise ValueError(f"intermediate_size must be at least 1, not {self.intermediate_size}")
        if not 0 < self.initializer_factor < math.inf:
            raise ValueError(f"initializer_factor must be finite and above 0, not {self.initializer_factor}")
        self._check_heads("num_attention_heads")
        delays = self.long_memory_delay_range
        if len(delays) != 2 or not 1 <= delays[0] <= delays[-1]:
            raise ValueError(
                f"long_memory_delay_range must be two numbers, 1 <= least <= largest, not {delays}"
            )
        largest = self.short_memory_size + 1
        for name, delay in (
            ("long_memory_delay", self.long_memory_delay),
            ("long_memory_delay_range", delays[1]),
        ):
            if self.use_long_memory and delay > largest:
                raise ValueError(
                    f"{name} ({delay}) must be at most short_memory_size + 1 ({largest}): pairs in between "
                    "would be in no memory"
                )


__all__ = ["MosaicV2Config"]
