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
"""Memory Mosaics (Zhang, Nolte, Sadhukhan, Chen, Bottou; arXiv 2405.06394), a model made of memories.

The file follows the paper: the keys of its equation 7, the contextual memory of equation 8, the persistent
memory, the block of its figure 8, and the models built from blocks. `plain_mosaic.py` says the same in fewer
words; there, reading begins.

Shapes: B batch, T new tokens, S slots (T new ones behind those of the cache), C hidden size, H heads, D head
size, M persistent pairs, N banks of them; n = B T tokens. A 1 in place of T is a single token, H11 stands for
`(heads, 1, 1)`. Slot t of a memory holds pair t - 1: its key k_{t-1} and its value v_{t-1}, which token t
completes. Slot 0 is a dummy that no query may see. So every token adds one slot, as in a transformer's cache.
"""

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F
from transformers import initialization as init
from transformers.cache_utils import Cache, DynamicCache
from transformers.generation import GenerationMixin
from transformers.modeling_layers import (
    GenericForSequenceClassification,
    GenericForTokenClassification,
    GradientCheckpointingLayer,
)
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, can_return_tuple
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .compatibility import CACHE_NAME, renames_cache
from .configuration_mosaic import MosaicConfig
from .leaky_average import elapsed_times
from .memory_masks import MemoryMasks, create_memory_masks, find_sequence_starts
from .memory_norms import SCALAR_GAIN, DerivedScalars, MosaicLeakyNorm, MosaicPeekNorm, as_dtype, has_kernel
from .memory_state import (
    CONTEXTUAL_AVERAGE,
    LAST_KEY,
    LAST_VALUE,
    PERSISTENT_AVERAGE,
    holds_memories,
    prepare_cache,
    read_state,
    repeat_over_padding,
    shift,
    write_state,
)
from .next_token_loss import next_token_loss

if TYPE_CHECKING:
    # Never imported: where a model is saved, what is named here is saved with it. mlx-lm loads it.
    from .mlx_mosaic import Model as Model


def split_heads(states_nC: torch.Tensor, num_heads: int, time: int) -> torch.Tensor:
    """`(batch * time, hidden)` to `(batch, heads, time, head_dim)`, a view."""
    head_dim = states_nC.shape[-1] // num_heads
    if time == 1:
        return states_nC.view(-1, num_heads, 1, head_dim)
    return states_nC.view(-1, time, num_heads, head_dim).transpose(1, 2)


class MosaicKeyExtractor(nn.Module):
    """Extracts the keys under which pairs are stored and with which a memory is queried: normalised leaky
    averages of `W_phi x` (equation 7)."""

    # Contextual and persistent memories have head counts of their own. trf-ignore: TRF029
    def __init__(self, config: MosaicConfig, num_heads: int, power: int):
        super().__init__()
        self.num_heads = num_heads
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=config.use_bias)
        self.leaky_norm = MosaicLeakyNorm(num_heads, config.max_log_key_scale, power)

    def forward(self, hidden_nC, time: int, state_BH1D, masks) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys `(batch, heads, time, head_dim)` and the averages behind them, see [`MosaicLeakyNorm`]."""
        key_BHTD = split_heads(self.k_proj(hidden_nC), self.num_heads, time)
        return self.leaky_norm(key_BHTD, state_BH1D, masks["keep"], masks["start"], masks["elapsed"])


def eager_attention_forward(module, query, key, value, attention_mask, scaling, dropout=0.0, **kwargs):
    """Attention step by step: the reference of the other implementations, which also returns its weights.

    They are those of the pairs, strictly lower triangular and 0 while the memory is empty: the dummy slot in
    front, which the mask hides, comes last here.
    """
    key, value, attention_mask = key.roll(-1, 2), value.roll(-1, 2), attention_mask.roll(-1, -1)
    weights = torch.matmul(query, key.transpose(2, 3)) * scaling + attention_mask
    weights = F.softmax(weights, dim=-1, dtype=torch.promote_types(query.dtype, torch.float32)).to(
        query.dtype
    )
    weights = weights.masked_fill((attention_mask < 0).all(-1, keepdim=True), 0)
    weights = F.dropout(weights, p=dropout, training=module.training)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights


def attend(module, query, key, value, mask, scaling=1.0, **kwargs):
    """Answers each query from a memory's keys and values, by the attention implementation of the config.

    `f(k) = sum_i softmax_i(scaling k . k_i) v_i` (equation 3): the average of the values under a Gaussian
    kernel, `exp(-scaling/2 |k - k_i|^2)` (equation 2), if all stored keys are equally long.
    """
    attention = ALL_ATTENTION_FUNCTIONS.get_interface(
        module.config._attn_implementation, eager_attention_forward
    )
    dropout = module.attention_dropout if module.training else 0.0
    return attention(module, query, key, value, mask, scaling=scaling, dropout=dropout, **kwargs)


def make_output_projection(config: MosaicConfig) -> nn.Linear:
    """Mixes what the memories of a layer recall; marked, as it starts smaller in deeper models.

    GPT-2 initialises its own where the module that owns it is initialised; transformers leaves that out for
    modules of remote code without parameters of their own. Plain `nn.Linear`, as quantisers match that class
    exactly.
    """
    projection = nn.Linear(config.hidden_size, config.hidden_size, bias=config.use_bias)
    projection.is_output_projection = True
    return projection


def recall_causal(module, query_BHTD, key_BHSD, value_BHSD, num_empty, **kwargs):
    """Unrolled in time: query T - 1 sees all pairs, and each one before it a pair less (equation 8).

    Args:
        module (`nn.Module`): has the attributes `config`, `attention_dropout` and `is_causal = True`.
        query_BHTD, key_BHSD, value_BHSD (`torch.Tensor`): without the dummy slot; as many queries as pairs,
            or one query.
        num_empty (`int`): queries in front of these that find the memory empty, and get 0 for an answer.
        kwargs: for [`attend`].

    Returns:
        `torch.Tensor`: answers `(batch, num_empty + time, heads, head_dim)`.
    """
    recalled_BTHD = query_BHTD.transpose(1, 2)
    if recalled_BTHD.shape[1] > 0:
        recalled_BTHD, _ = attend(module, query_BHTD, key_BHSD, value_BHSD, None, **kwargs)
    return F.pad(recalled_BTHD, (0, 0, 0, 0, num_empty, 0)) if num_empty else recalled_BTHD


class MosaicContextualMemory(nn.Module):
    """A layer of contextual memories, which store pairs as the text goes by.

    `y_T = sum_{i <= T-1} softmax_i(k_T . k_i) v_i`, and 0 while the memory is empty (equation 8). Queries are
    the keys of the new tokens.
    """

    def __init__(self, config: MosaicConfig, layer_idx: int):
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.num_heads = config.num_attention_heads
        self.attention_dropout = config.attention_dropout
        self.is_causal = True
        self.key_extractor = MosaicKeyExtractor(config, self.num_heads, power=1)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=config.use_bias)
        self.peek_norm = MosaicPeekNorm(self.num_heads)
        self.o_proj = make_output_projection(config)
        self.dropout = nn.Dropout(config.hidden_dropout)

    def forward(
        self,
        hidden_states: torch.Tensor,
        masks: MemoryMasks,
        cache: Cache | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """
        Args:
            hidden_states (`torch.Tensor` of shape `(batch, time, hidden)`): layer-normed residual stream.
            masks (`MemoryMasks`): which slots each token may see.
            cache (`Cache`, *optional*): memories so far; updated in place.

        Returns:
            What the memories recall, `(batch, time, hidden)`, and the weight of each pair, `(batch, heads,
            time, slots)`, if the attention implementation returns weights: strictly lower triangular, column
            i is pair i.
        """
        query_BHTD, key_BHSD, value_BHSD, num_empty = self.store(hidden_states, masks, cache)
        if hasattr(cache, "answer"):
            # It bounds or searches what it stores.
            recalled_BTHD, weights = cache.answer(query_BHTD, masks["recall"], masks["keep"], self.layer_idx)
        else:
            recalled_BTHD, weights = self.recall(query_BHTD, key_BHSD, value_BHSD, num_empty, masks, **kwargs)
        recalled = self.o_proj(recalled_BTHD.reshape(-1, hidden_states.shape[-1])).view(hidden_states.shape)
        return self.dropout(recalled) if self.training else recalled, weights

    def store(self, hidden_states: torch.Tensor, masks: MemoryMasks, cache: Cache | None):
        """Stores the pairs that the new tokens complete: equation 7, and the cache.

        Returns:
            `tuple`: queries `(batch, heads, time, head_dim)`; keys and values of all slots `(batch, heads,
            slots, head_dim)`; and how many first queries, 0 or 1, find the memory empty and are left out of
            these, as the dummy slot is, where no mask hides it.
        """
        time = hidden_states.shape[1]
        last_average, last_key, last_value = (
            read_state(cache, self.layer_idx, state_idx, self.num_heads)
            for state_idx in (CONTEXTUAL_AVERAGE, LAST_KEY, LAST_VALUE)
        )
        # Two dimensions, since a linear layer takes fewer operations for them.
        hidden_nC = hidden_states.view(-1, hidden_states.shape[-1])
        key_BHTD, average_BHTD = self.key_extractor(hidden_nC, time, last_average, masks)
        value_BHTD = split_heads(self.v_proj(hidden_nC), self.num_heads, time)

        is_first, is_causal = last_key is None, masks["recall"] is None
        if is_first and (cache is not None or not is_causal):
            # What fills the dummy slot.
            last_key = last_value = torch.zeros_like(value_BHTD[:, :, :1])
        elif not is_first:
            last_key, last_value = as_dtype(last_key, key_BHTD.dtype), as_dtype(last_value, value_BHTD.dtype)
        if masks["keep"] is not None:
            value_BHTD = repeat_over_padding(last_value, value_BHTD, masks["keep"])
        key_BHSD, older_BHSD = shift(last_key, key_BHTD), shift(last_value, value_BHTD)
        newer_BHSD = value_BHTD if last_value is not None else value_BHTD[:, :, 1:]
        value_BHSD = self.peek_norm(older_BHSD, newer_BHSD)
        if cache is not None:
            key_BHSD, value_BHSD = cache.update(key_BHSD, value_BHSD, self.layer_idx)
            write_state(cache, self.layer_idx, CONTEXTUAL_AVERAGE, average_BHTD)
            write_state(cache, self.layer_idx, LAST_KEY, key_BHTD)
            write_state(cache, self.layer_idx, LAST_VALUE, value_BHTD)
            if is_causal:
                key_BHSD, value_BHSD = key_BHSD[:, :, 1:], value_BHSD[:, :, 1:]
        num_empty = int(is_first and is_causal)
        return key_BHTD[:, :, 1:] if num_empty else key_BHTD, key_BHSD, value_BHSD, num_empty

    def recall(self, query_BHTD, key_BHSD, value_BHSD, num_empty: int, masks: MemoryMasks, **kwargs):
        """Recalls what the memories hold for each query (equation 8); arguments as [`store`] returns them.

        Returns:
            `tuple`: answers `(batch, time, heads, head_dim)`, 0 where the memory is empty, and weights or
            `None`.
        """
        if masks["recall"] is None:
            return recall_causal(self, query_BHTD, key_BHSD, value_BHSD, num_empty, **kwargs), None
        if masks["cu_seq_lens"] is not None:
            return self._recall_packed(query_BHTD, key_BHSD, value_BHSD, masks, **kwargs), None
        recalled_BTHD, weights = attend(self, query_BHTD, key_BHSD, value_BHSD, masks["slots"], **kwargs)
        # Attention over no slots is implementation-defined.
        return recalled_BTHD.masked_fill(~masks["recall"][:, :, None, None], 0), weights

    def _recall_packed(self, query_BHTD, key_BHSD, value_BHSD, masks, **kwargs):
        """`recall_causal` for each packed sequence, by flash attention's kernel for varying lengths."""
        batch, _, time, _ = query_BHTD.shape
        index = masks["recall"].flatten().nonzero()[:, 0]
        recalled = torch.zeros_like(query_BHTD.transpose(1, 2)).flatten(0, 1)
        if len(index):
            cu_seq_lens = masks["cu_seq_lens"]
            longest = int(cu_seq_lens.diff().max())
            packing = {"cu_seq_lens_q": cu_seq_lens, "cu_seq_lens_k": cu_seq_lens}
            packing |= {"max_length_q": longest, "max_length_k": longest}
            query, key, value = (
                states.transpose(1, 2).flatten(0, 1)[index].transpose(0, 1)[None]
                for states in (query_BHTD, key_BHSD, value_BHSD)
            )
            answer, _ = attend(self, query, key, value, None, **packing, **kwargs)
            recalled = recalled.index_copy(0, index, answer[0])
        return recalled.unflatten(0, (batch, time))


class MosaicPersistentMemory(nn.Module):
    """A layer of persistent memories, whose pairs are trained: `y_T = alpha softmax(k_T K^T) V`.

    They take the place of a transformer's feed-forward network. Stored keys are not normalised. The pairs are
    parameters and have no order, so that no attention implementation needs to be chosen: sdpa always serves.
    """

    def __init__(self, config: MosaicConfig, layer_idx: int):
        super().__init__()
        num_heads = config.num_persistent_heads
        head_dim = config.hidden_size // num_heads
        shape_NHMD = (config.num_persistent_banks, num_heads, config.persistent_memory_size, head_dim)
        self.attention_dropout = config.attention_dropout
        self.layer_idx = layer_idx
        self.num_heads = num_heads
        self.key_extractor = MosaicKeyExtractor(config, num_heads, power=2)
        self.memory_keys = nn.Parameter(torch.empty(shape_NHMD))
        self.memory_values = nn.Parameter(torch.empty(shape_NHMD))
        self.log_value_norm = nn.Parameter(torch.empty(num_heads))
        self.derived = DerivedScalars()
        self.o_proj = make_output_projection(config)
        self.dropout = nn.Dropout(config.hidden_dropout)

    def derive(self, log_value_norm_H):
        """The scale alpha of what is recalled."""
        return (torch.exp(SCALAR_GAIN * log_value_norm_H).view(-1, 1, 1),)

    def forward(
        self, hidden_states: torch.Tensor, masks: MemoryMasks, cache: Cache | None = None
    ) -> torch.Tensor:
        """Arguments and first result as for [`MosaicContextualMemory`]."""
        last_average = read_state(cache, self.layer_idx, PERSISTENT_AVERAGE, self.num_heads)
        hidden_nC = hidden_states.view(-1, hidden_states.shape[-1])
        query_BHTD, average_BHTD = self.key_extractor(hidden_nC, hidden_states.shape[1], last_average, masks)
        if cache is not None:
            write_state(cache, self.layer_idx, PERSISTENT_AVERAGE, average_BHTD)
        # All rows ask the same memories, so that the batch can be part of the time.
        query_HnD = query_BHTD.transpose(0, 1).reshape(self.num_heads, -1, query_BHTD.shape[-1])
        (scale_H11,) = self.derived.get(self.derive, self.log_value_norm)
        recalled_HnD = self.recall(query_HnD, hidden_states.shape[1]) * as_dtype(scale_H11, query_HnD.dtype)
        recalled = self.o_proj(recalled_HnD.transpose(0, 1).reshape(hidden_nC.shape)).view(
            hidden_states.shape
        )
        return self.dropout(recalled) if self.training else recalled

    def recall(self, query_HnD: torch.Tensor, time: int) -> torch.Tensor:
        """The mean over banks of `softmax(k K^T) V`."""
        num_banks, num_heads, num_pairs, head_dim = self.memory_keys.shape
        if time == 1 and num_banks == 1 and not self.training:
            # Two plain products: fewer operations than a fused kernel, which saves memory for longer rows.
            key_HMD = self.memory_keys.view(num_heads, num_pairs, head_dim)
            value_HMD = self.memory_values.view(num_heads, num_pairs, head_dim)
            weight_HnM = torch.bmm(query_HnD, key_HMD.transpose(1, 2)).softmax(-1)
            return torch.bmm(weight_HnM, value_HMD)
        recalled_NHnD = F.scaled_dot_product_attention(
            query_HnD[None] if num_banks == 1 else query_HnD.expand(num_banks, -1, -1, -1),
            self.memory_keys,
            self.memory_values,
            dropout_p=self.attention_dropout if self.training else 0.0,
            scale=1.0,
        )
        return recalled_NHnD.squeeze(0) if num_banks == 1 else recalled_NHnD.mean(0)


class MosaicBlock(GradientCheckpointingLayer):
    """`x += contextual(LN(x)); x += persistent(LN(x))` (paper, figure 8)."""

    def __init__(self, config: MosaicConfig, layer_idx: int):
        super().__init__()
        self.contextual_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps, bias=config.use_bias)
        self.contextual_memory = MosaicContextualMemory(config, layer_idx)
        self.persistent_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps, bias=config.use_bias)
        self.persistent_memory = MosaicPersistentMemory(config, layer_idx)

    def forward(
        self,
        hidden_states: torch.Tensor,
        masks: MemoryMasks,
        cache: Cache | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        recalled, _ = self.contextual_memory(
            self.contextual_norm(hidden_states), masks=masks, cache=cache, **kwargs
        )
        hidden_states = hidden_states + recalled
        recalled = self.persistent_memory(self.persistent_norm(hidden_states), masks, cache)
        return hidden_states + recalled


# Docstrings are written here, without `@auto_docstring` (rule TRF057 of transformers-mlinter): outside of its
# own tree it finds no model's name, and it describes inputs by what they mean to other models, as positions.
# trf-ignore: TRF057
class MosaicPreTrainedModel(PreTrainedModel):
    """What all Memory Mosaics share: capabilities and initialisation."""

    config: MosaicConfig
    config_class = MosaicConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["MosaicBlock"]
    _skip_keys_device_placement = ["cache", "past_key_values"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": MosaicBlock, "attentions": MosaicContextualMemory}
    create_masks_for_generate = staticmethod(create_memory_masks)
    # What that returns.
    _masks_class = MemoryMasks

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialises as the original code does (architecture of the paper's section 5)."""
        if isinstance(module, nn.Embedding):
            std = self.config.hidden_size**-0.5 if self.config.tie_word_embeddings else 1.0
            init.normal_(module.weight, std=std)
        elif isinstance(module, nn.Linear):
            is_output = getattr(module, "is_output_projection", False)
            fan_in = module.in_features * (self.config.num_hidden_layers if is_output else 1)
            init.normal_(module.weight, std=fan_in**-0.5)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, MosaicLeakyNorm):
            init.copy_(module.leak, torch.linspace(0.5, 5, len(module.leak)) / SCALAR_GAIN)
            init.constant_(module.log_scale, 1 / SCALAR_GAIN)
        elif isinstance(module, MosaicPeekNorm):
            init.uniform_(module.mix)
            init.constant_(module.log_scale, -0.5 / SCALAR_GAIN)
        elif isinstance(module, MosaicPersistentMemory):
            init.normal_(module.memory_keys, std=module.memory_keys.shape[-1] ** -0.5)
            init.normal_(module.memory_values, std=module.memory_values.shape[-1] ** -0.5)
            init.constant_(module.log_value_norm, -0.5 / SCALAR_GAIN)
        else:
            super()._init_weights(module)


# trf-ignore: TRF057
class MosaicModel(MosaicPreTrainedModel):
    """Embedding, blocks and a last layer norm: a Memory Mosaic without a head (paper, figure 8)."""

    _auto_class = "AutoModel"

    def __init__(self, config: MosaicConfig):
        config.validate_architecture()
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            [MosaicBlock(config, layer_idx) for layer_idx in range(config.num_hidden_layers)]
        )
        self.norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps, bias=config.use_bias)
        self.gradient_checkpointing = False
        self.post_init()

    # trf-ignore: TRF057
    @renames_cache
    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        use_cache: bool | None = None,
        seq_idx: torch.Tensor | None = None,
        cu_seq_lens_q: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPast:
        """
        Args:
            input_ids (`torch.LongTensor` of shape `(batch, time)`): token ids.
            attention_mask (`torch.Tensor` of shape `(batch, seen + time)`, *optional*): 0 for padding,
                anywhere.
            position_ids (`torch.LongTensor` of shape `(batch, time)`, *optional*): there are no positions in
                a Memory Mosaic. Without mask and cache, a place where they do not rise by one starts a new
                packed sequence.
            cache (`Cache`, *optional*): what an earlier call returned, or `DynamicCache(config=config)`; the
                old name `past_key_values` is understood too.
            inputs_embeds (`torch.FloatTensor` of shape `(batch, time, hidden)`, *optional*): instead of
                `input_ids`.
            use_cache (`bool`, *optional*): whether to return a `cache`.
            seq_idx (`torch.Tensor` of shape `(batch, time)`, *optional*): number of the packed sequence of
                each token.
            cu_seq_lens_q (`torch.Tensor` of shape `(sequences + 1,)`, *optional*): borders of packed
                sequences in a batch of one row; like `seq_idx`, what `DataCollatorWithFlattening` gives.

        Raises:
            ValueError: for token ids outside the vocabulary (on a CPU), no tokens, a mask that is not
                `(batch, seen + time)`, packed sequences together with a mask or a cache, a cache with
                memories where layers are checkpointed in training, or a cache built for another model.
        """
        self._check_inputs(input_ids, inputs_embeds, attention_mask, cache)
        if inputs_embeds is None:
            inputs_embeds = self._embed(input_ids)
        for name in ("cu_seq_lens_k", "max_length_q", "max_length_k"):
            kwargs.pop(name, None)
        start_BT = find_sequence_starts(
            inputs_embeds, attention_mask, position_ids, cache, seq_idx, cu_seq_lens_q
        )
        if start_BT is not None or self._replays_layers:
            cache = None
        elif use_cache and cache is None:
            cache = DynamicCache(config=self.config)
        masks = self._create_masks(inputs_embeds, attention_mask, cache, start_BT)

        hidden_states = inputs_embeds
        for layer in self.layers:
            hidden_states = layer(hidden_states, masks=masks, cache=cache, **kwargs)
        return BaseModelOutputWithPast(last_hidden_state=self.norm(hidden_states), **{CACHE_NAME: cache})

    def _create_masks(self, inputs_embeds, attention_mask, cache, start_BT) -> MemoryMasks:
        masks = create_memory_masks(self.config, inputs_embeds, attention_mask, cache, start_BT=start_BT)
        if inputs_embeds.shape[1] > 1 and not has_kernel(inputs_embeds):
            masks = {**masks, "elapsed": elapsed_times(inputs_embeds, masks["keep"], masks["start"])}
        return masks

    def _prepare_cache(self, cache: Cache, batch: int) -> None:
        prepare_cache(cache, self.config, batch)

    @property
    def _replays_layers(self) -> bool:
        """Whether the backward pass runs layers again, which would store their pairs a second time."""
        return self.gradient_checkpointing and self.training and torch.is_grad_enabled()

    def _embed(self, input_ids: torch.LongTensor) -> torch.Tensor:
        try:
            return self.embed_tokens(input_ids)
        except IndexError:
            lowest, highest = (int(bound) for bound in input_ids.aminmax())
            wrong = lowest if lowest < 0 else highest
            raise ValueError(
                f"input_ids must lie in [0, {self.embed_tokens.num_embeddings}), not {wrong}"
            ) from None

    def _check_inputs(self, input_ids, inputs_embeds, attention_mask, cache) -> None:
        """Raises a `ValueError` that names the first input that does not suit the model or the others."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("exactly one of input_ids and inputs_embeds must be given")
        name, inputs = ("input_ids", input_ids) if inputs_embeds is None else ("inputs_embeds", inputs_embeds)
        width = () if inputs_embeds is None else (self.config.hidden_size,)
        if inputs.ndim != 2 + len(width) or inputs.shape[2:] != width or inputs.shape[1] == 0:
            wanted = ", ".join(["batch", "time", *map(str, width)])
            raise ValueError(
                f"{name} must have shape ({wanted}), and at least one token, not {tuple(inputs.shape)}"
            )
        names = self._masks_class.__annotations__
        if isinstance(attention_mask, dict) and not attention_mask.keys() >= names.keys():
            raise ValueError(
                "a dict as attention_mask must be what create_masks_for_generate returns, with the keys "
                f"{', '.join(names)}, not "
                f"{', '.join(map(str, attention_mask)) or 'an empty one'}"
            )
        if cache is not None:
            self._prepare_cache(cache, inputs.shape[0])
            if self._replays_layers and holds_memories(cache):
                raise ValueError("activation checkpointing in training excludes a cache that holds memories")


def forget_missing_head(model: "MosaicForCausalLM", incompatible_keys) -> None:
    """Does not report the head as missing from a state dict that has the embedding it is tied to."""
    if model.lm_head.weight is not model.model.embed_tokens.weight:
        return
    missing = incompatible_keys.missing_keys
    for head in [name for name in missing if name.endswith("lm_head.weight")]:
        if head.replace("lm_head.weight", "model.embed_tokens.weight") not in missing:
            missing.remove(head)


# trf-ignore: TRF057
class MosaicForCausalLM(MosaicPreTrainedModel, GenerationMixin):
    """A Memory Mosaic that predicts the next token: `logits = logit_scale * W x`, W tied to the embedding."""

    _auto_class = "AutoModelForCausalLM"
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}
    # The body; a second model with the same heads has another.
    _body_class = MosaicModel
    # What `loss_function` returns, unless it is set to another one.
    _loss_function = staticmethod(next_token_loss)

    def __init__(self, config: MosaicConfig):
        super().__init__(config)
        self.model = self._body_class(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        # The Trainer loads checkpoints by `load_state_dict`, and files hold a tied weight once.
        self.register_load_state_dict_post_hook(forget_missing_head)
        self.post_init()

    # trf-ignore: TRF057
    @renames_cache
    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: Unpack[TransformersKwargs],
    ) -> CausalLMOutputWithPast:
        """
        Args as for [`MosaicModel`], and:
            labels (`torch.LongTensor` of shape `(batch, time)`, *optional*): the tokens themselves, -100
                where they do not count; the loss compares position t with label t + 1.
            logits_to_keep (`int` or `torch.Tensor`): how many of the last positions get logits (0: all), or
                which.
        """
        outputs: BaseModelOutputWithPast = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            cache=cache,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        hidden_states = outputs.last_hidden_state[:, kept]
        # Far fewer elements than the logits.
        logits = self.lm_head(hidden_states * self.config.logit_scale)
        loss = None
        if labels is not None:
            loss = self.loss_function(
                logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs
            )
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            **{CACHE_NAME: outputs[CACHE_NAME] if CACHE_NAME in outputs else None},
        )


class MosaicForSequenceClassification(GenericForSequenceClassification, MosaicPreTrainedModel):
    """A Memory Mosaic with a linear layer on the last token that is not padding."""

    _auto_class = "AutoModelForSequenceClassification"
    _body_class = MosaicModel

    def __init__(self, config: MosaicConfig):
        # The generic constructor asks AutoModel for the body, which would ask whether to trust remote code.
        MosaicPreTrainedModel.__init__(self, config)
        self.num_labels = config.num_labels
        self.model = self._body_class(config)
        self.score = nn.Linear(config.hidden_size, config.num_labels, bias=False)
        self.post_init()


class MosaicForTokenClassification(GenericForTokenClassification, MosaicPreTrainedModel):
    """A Memory Mosaic with a linear layer on every token."""

    _auto_class = "AutoModelForTokenClassification"
    _body_class = MosaicModel

    def __init__(self, config: MosaicConfig):
        MosaicPreTrainedModel.__init__(self, config)
        self.num_labels = config.num_labels
        self.model = self._body_class(config)
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.score = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()


# The Trainer computes the loss of smoothed labels by itself, and shifts them for the classes named here only.
# Auto classes do not enter their names; in this file, that is done where it comes from the Hub, too.
MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.setdefault(MosaicConfig.model_type, MosaicForCausalLM.__name__)


__all__ = [
    "MosaicForCausalLM",
    "MosaicForSequenceClassification",
    "MosaicForTokenClassification",
    "MosaicModel",
    "MosaicPreTrainedModel",
]
