"""Memory Mosaics (Zhang, Nolte, Sadhukhan, Chen, Bottou; arXiv 2405.06394), a model made of memories.

The file follows the paper: the two normalisations of its equation 7, the contextual memory of equation 8, the
persistent memory, the block of its figure 8, and the models built from blocks.

Shapes: B batch, T new tokens, S slots (T new ones behind those of the cache), C hidden size, H heads, D head
size, M persistent pairs. Slot t of a memory holds pair t - 1: its key k_{t-1} and its value v_{t-1}, which
token t completes. Slot 0 is a dummy that no query may see. So every token adds one slot, as in any
transformer's cache.
"""

import torch
from torch import nn
from torch.nn import functional as F
from transformers import initialization as init
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer
from transformers.generation import GenerationMixin
from transformers.modeling_layers import (
    GenericForSequenceClassification,
    GenericForTokenClassification,
    GradientCheckpointingLayer,
)
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel, slice_logits_to_keep
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, can_return_tuple
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.import_utils import is_tracing
from transformers.utils.output_capturing import capture_outputs

from .compatibility import CACHE_NAME, renames_cache
from .configuration_mosaic import MosaicConfig
from .leaky_average import leaky_average
from .memory_masks import MASK_NAMES, create_memory_masks, create_packed_masks, find_sequence_starts
from .next_token_loss import next_token_loss

# The scalars r and s of a memory are stored divided by this, as in the original: Adam then moves them ten
# times as fast.
SCALAR_GAIN = 10.0


def split_heads(states_BTC: torch.Tensor, num_heads: int) -> torch.Tensor:
    """`(batch, time, hidden)` to `(batch, heads, time, head_dim)`, a view."""
    return states_BTC.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def scaled_unit(vector_BHTD: torch.Tensor, log_scale_H: torch.Tensor) -> torch.Tensor:
    """`alpha Norm(x)` of equation 7; a zero vector stays zero, and has a finite gradient."""
    norm_BHT1 = torch.linalg.vector_norm(vector_BHTD, dim=-1, keepdim=True)
    scale_H11 = torch.exp(log_scale_H).view(-1, 1, 1)
    return vector_BHTD * (scale_H11 / torch.threshold(norm_BHT1, 0.0, 1.0))


class MosaicLeakyNorm(nn.Module):
    """Leaky average of keys, normalised: `k_T = alpha Norm(k~_T + lambda kbar_{T-1})` (equation 7).

    `lambda = exp(-|r|)` and `alpha = exp(min(s, max_log_scale)) ** power`, one r and one s a head. It is
    called a norm also because the Trainer spares what is called so from weight decay, as the original spares
    these scalars.
    """

    def __init__(self, num_heads: int, max_log_scale: float, power: int, include_previous: bool):
        super().__init__()
        self.max_log_scale = max_log_scale
        self.power = power
        self.include_previous = include_previous
        self.leak = nn.Parameter(torch.empty(num_heads))
        self.log_scale = nn.Parameter(torch.empty(num_heads))

    def forward(self, key_BHTD, state_BH1D=None, keep_BT=None, start_BT=None):
        """Keys, that of the state in front if `include_previous`, and float32 averages of the new tokens.

        All that needs r and s happens in here: accelerate takes offloaded parameters away between calls.
        """
        dtype = torch.promote_types(key_BHTD.dtype, torch.float32)
        leak_H = SCALAR_GAIN * self.leak.to(dtype).abs()
        state_BHD = None if state_BH1D is None else state_BH1D[:, :, 0]
        average_BHTD, _ = leaky_average(key_BHTD, leak_H, state_BHD, keep_BT=keep_BT, start_BT=start_BT)
        with_previous_BHtD = average_BHTD
        if self.include_previous and state_BH1D is not None:
            with_previous_BHtD = torch.cat([state_BH1D, average_BHTD], 2)
        log_scale_H = (self.power * SCALAR_GAIN * self.log_scale.to(dtype)).clamp(
            max=self.power * self.max_log_scale
        )
        return scaled_unit(with_previous_BHtD, log_scale_H).to(key_BHTD.dtype), average_BHTD


class MosaicPeekNorm(nn.Module):
    """Values that peek one step ahead, normalised: `v_T = alpha Norm(c v~_T + (1 - c) v~_{T+1})` (eq. 7).

    Norm makes this the paper's `v~_T + lambda v~_{T+1}` with `lambda = (1 - c) / c`. One c and one s a head,
    `alpha = exp(s)`; for the name see [`MosaicLeakyNorm`].
    """

    def __init__(self, num_heads: int):
        super().__init__()
        self.mix = nn.Parameter(torch.empty(num_heads))
        self.log_scale = nn.Parameter(torch.empty(num_heads))

    def forward(self, value_BHTD: torch.Tensor) -> torch.Tensor:
        """Of T values v~ the first T - 1 values v, each of which peeks at the next; in the same precision."""
        dtype = torch.promote_types(value_BHTD.dtype, torch.float32)
        older_BHTD, newer_BHTD = value_BHTD[:, :, :-1].to(dtype), value_BHTD[:, :, 1:].to(dtype)
        mixed_BHTD = torch.lerp(newer_BHTD, older_BHTD, self.mix.to(dtype).view(-1, 1, 1))
        return scaled_unit(mixed_BHTD, SCALAR_GAIN * self.log_scale.to(dtype)).to(value_BHTD.dtype)


class MosaicKeyExtractor(nn.Module):
    """What a memory is asked by and filed under: normalised leaky averages of `W_phi x` (equation 7)."""

    def __init__(self, config: MosaicConfig, num_heads: int, power: int = 1, include_previous: bool = False):
        super().__init__()
        self.num_heads = num_heads
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=config.use_bias)
        self.leaky_norm = MosaicLeakyNorm(num_heads, config.max_log_key_scale, power, include_previous)

    def forward(self, hidden_states, state_BH1D, masks) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys `(batch, heads, time, head_dim)` and the averages behind them, see [`MosaicLeakyNorm`]."""
        key_BHTD = split_heads(self.k_proj(hidden_states), self.num_heads)
        return self.leaky_norm(key_BHTD, state_BH1D, masks["keep"], masks["start"])


def read_state(cache: Cache | None, layer_idx: int, state_idx: int, num_heads: int) -> torch.Tensor | None:
    """The cached `(batch, heads, 1, head_dim)` state after the last token seen, `None` if there was none."""
    state_BCn = None if cache is None else cache.get_conv_state(layer_idx, state_idx)
    if state_BCn is None:
        return None
    # A copy, because the cache overwrites its states in place.
    return state_BCn[..., -1].clone().unflatten(1, (num_heads, 1, -1))


def is_prefix(cache: Cache) -> bool:
    """Whether a cache holds keys and values alone, as prefix tuning makes it."""
    return all(type(layer) is DynamicLayer and layer.is_initialized for layer in cache.layers)


def add_states(cache: Cache, config: MosaicConfig) -> None:
    """Gives a cache for which [`is_prefix`] holds the states that it lacks.

    They are zero: the prefix is read like a text whose last token has a zero key and a zero value. Its first
    pair lies in the dummy slot, which no query may see.
    """
    complete = DynamicCache(config=config)
    for layer_idx, layer in enumerate(cache.layers):
        complete.update(layer.keys, layer.values, layer_idx)
        for state_idx, num_vectors in enumerate((2, 1)):
            state_BC1 = layer.keys.new_zeros(len(layer.keys), num_vectors * config.hidden_size, 1)
            complete.update_conv_state(state_BC1, layer_idx, state_idx=state_idx, conv_kernel_size=1)
    cache.layers = complete.layers


def write_state(cache: Cache | None, layer_idx: int, state_idx: int, *states_BHTD: torch.Tensor) -> None:
    """Hands the states after new tokens to the cache, which keeps the last; all while it records."""
    if cache is None:
        return
    is_recording = cache.is_recording_past(layer_idx)
    if not is_recording:
        states_BHTD = [state_BHTD[:, :, -1:] for state_BHTD in states_BHTD]
    state_BHTD = torch.cat(states_BHTD, 1) if len(states_BHTD) > 1 else states_BHTD[0]
    state_BCT = state_BHTD.transpose(2, 3).flatten(1, 2)
    kept_BC1 = cache.get_conv_state(layer_idx, state_idx)
    if is_recording or kept_BC1 is None:
        cache.update_conv_state(state_BCT, layer_idx, state_idx=state_idx, conv_kernel_size=1)
    elif cache.is_compileable:
        # What updating comes to, without putting the old state in front of the new one first; in place, as
        # graphs know the state by its address.
        kept_BC1.copy_(state_BCT)
    else:
        # Not in place: the old state may be a leaf of a graph of gradients, or made for inference only.
        cache.layers[layer_idx].conv_states[state_idx] = state_BCT


def repeat_over_padding(value_BHtD: torch.Tensor, keep_BT: torch.Tensor) -> torch.Tensor:
    """Puts the last real value at each padded position, so that the next real token completes that one.

    `value_BHtD` has one value more, in front: that before the first token.
    """
    step_T = torch.arange(1, keep_BT.shape[1] + 1, device=keep_BT.device)
    last_real_Bt = F.pad((step_T * keep_BT).cummax(-1)[0], (1, 0))
    return value_BHtD.gather(2, last_real_Bt[:, None, :, None].expand_as(value_BHtD))


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
    """What a memory with these keys and values answers to each query, by the implementation of the config.

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

    No class of its own: tools that quantise replace `nn.Linear` and nothing made from it.
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
    """A layer of contextual memories, which store pairs as the text goes by (equation 8).

    `y_T = sum_{i <= T-1} softmax_i(k_T . k_i) v_i`, and 0 while the memory is empty. The same keys ask and
    are asked.
    """

    def __init__(self, config: MosaicConfig, layer_idx: int):
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.num_heads = config.num_attention_heads
        self.attention_dropout = config.attention_dropout
        self.is_causal = True
        self.key_extractor = MosaicKeyExtractor(config, self.num_heads, include_previous=True)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=config.use_bias)
        self.peek_norm = MosaicPeekNorm(self.num_heads)
        self.o_proj = make_output_projection(config)
        self.dropout = nn.Dropout(config.hidden_dropout)

    def forward(
        self,
        hidden_states: torch.Tensor,
        masks: dict[str, torch.Tensor | None],
        cache: Cache | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """
        Args:
            hidden_states (`torch.Tensor` of shape `(batch, time, hidden)`): layer-normed residual stream.
            masks (`dict`): see `create_memory_masks`.
            cache (`Cache`, *optional*): memories so far; updated in place.

        Returns:
            What the memories recall, `(batch, time, hidden)`, and the weight of each pair, `(batch, heads,
            time, slots)`, if the attention implementation returns weights: strictly lower triangular, column
            i is pair i.
        """
        time = hidden_states.shape[1]
        average_BH1D = None
        state_BH1D = read_state(cache, self.layer_idx, 0, 2 * self.num_heads)
        value_BHtD = split_heads(self.v_proj(hidden_states), self.num_heads)
        if state_BH1D is not None:
            average_BH1D, value_BH1D = state_BH1D.chunk(2, 1)
            value_BHtD = torch.cat([value_BH1D.to(value_BHtD.dtype), value_BHtD], 2)
        key_BHtD, average_BHTD = self.key_extractor(hidden_states, average_BH1D, masks)
        if state_BH1D is None and (cache is not None or masks["recall"] is not None):
            # What fills the dummy slot.
            key_BHtD, value_BHtD = F.pad(key_BHtD, (0, 0, 1, 0)), F.pad(value_BHtD, (0, 0, 1, 0))
        if masks["keep"] is not None:
            value_BHtD = repeat_over_padding(value_BHtD, masks["keep"])
        write_state(cache, self.layer_idx, 0, average_BHTD, value_BHtD[:, :, -time:])

        query_BHTD, key_BHSD = key_BHtD[:, :, 1:], key_BHtD[:, :, :-1]
        value_BHSD = self.peek_norm(value_BHtD)
        if cache is not None:
            # Contiguous, because `torch.cat`, which dynamic caches use, is then a few times as fast.
            key_BHSD, value_BHSD = cache.update(
                key_BHSD.contiguous(), value_BHSD.contiguous(), self.layer_idx
            )

        weights = None
        if masks["recall"] is None:
            num_empty = int(state_BH1D is None)
            if cache is not None:
                query_BHTD = query_BHTD[:, :, num_empty:]
                # Behind the dummy slot.
                key_BHSD, value_BHSD = key_BHSD[:, :, 1:], value_BHSD[:, :, 1:]
            recalled_BTHD = recall_causal(self, query_BHTD, key_BHSD, value_BHSD, num_empty, **kwargs)
        elif masks["cu_seq_lens"] is not None:
            recalled_BTHD = self._recall_packed(query_BHTD, key_BHSD, value_BHSD, masks, **kwargs)
        else:
            recalled_BTHD, weights = attend(self, query_BHTD, key_BHSD, value_BHSD, masks["slots"], **kwargs)
            # Where the memory is empty, attention does whatever its implementation does without any slot.
            recalled_BTHD = recalled_BTHD.masked_fill(~masks["recall"][:, :, None, None], 0)
        return self.dropout(self.o_proj(recalled_BTHD.flatten(2))), weights

    def _recall_packed(self, query_BHTD, key_BHSD, value_BHSD, masks, **kwargs):
        """`recall_causal` for each packed sequence, by flash attention's kernel for varying lengths."""
        batch, _, time, _ = query_BHTD.shape
        index = masks["recall"].flatten().nonzero()[:, 0]
        states = [
            states.transpose(1, 2).flatten(0, 1)[index] for states in (query_BHTD, key_BHSD, value_BHSD)
        ]
        recalled = torch.zeros_like(query_BHTD.transpose(1, 2)).flatten(0, 1)
        if len(index):
            cu_seq_lens = masks["cu_seq_lens"]
            longest = int(cu_seq_lens.diff().max())
            packing = {"cu_seq_lens_q": cu_seq_lens, "cu_seq_lens_k": cu_seq_lens}
            packing |= {"max_length_q": longest, "max_length_k": longest}
            query, key, value = (states.transpose(0, 1)[None] for states in states)
            answer, _ = attend(self, query, key, value, None, **packing, **kwargs)
            recalled = recalled.index_copy(0, index, answer[0])
        return recalled.unflatten(0, (batch, time))


class MosaicPersistentMemory(nn.Module):
    """A layer of persistent memories, whose pairs are trained: `y_T = alpha softmax(k_T K^T) V`.

    They take the place of a transformer's feed-forward network. Stored keys are not normalised.
    """

    def __init__(self, config: MosaicConfig, layer_idx: int):
        super().__init__()
        num_heads = config.num_persistent_heads
        head_dim = config.hidden_size // num_heads
        shape = (config.num_persistent_banks, num_heads, config.persistent_memory_size, head_dim)
        self.attention_dropout = config.attention_dropout
        self.layer_idx = layer_idx
        self.num_heads = num_heads
        self.key_extractor = MosaicKeyExtractor(config, num_heads, power=2)
        self.memory_keys = nn.Parameter(torch.empty(shape))
        self.memory_values = nn.Parameter(torch.empty(shape))
        self.log_value_norm = nn.Parameter(torch.empty(num_heads))
        self.o_proj = make_output_projection(config)
        self.dropout = nn.Dropout(config.hidden_dropout)

    def forward(
        self,
        hidden_states: torch.Tensor,
        masks: dict[str, torch.Tensor | None],
        cache: Cache | None = None,
    ) -> torch.Tensor:
        """Arguments and first result as for [`MosaicContextualMemory`]."""
        average_BH1D = read_state(cache, self.layer_idx, 1, self.num_heads)
        query_BHTD, average_BHTD = self.key_extractor(hidden_states, average_BH1D, masks)
        write_state(cache, self.layer_idx, 1, average_BHTD)
        batch, _, time, _ = query_BHTD.shape
        # All rows ask the same memory, so that the batch can be part of the time.
        query_HtD = query_BHTD.transpose(0, 1).flatten(1, 2)
        num_banks = len(self.memory_keys)
        recalled_NHtD = F.scaled_dot_product_attention(
            query_HtD.expand(num_banks, -1, -1, -1),
            self.memory_keys,
            self.memory_values,
            dropout_p=self.attention_dropout if self.training else 0.0,
            scale=1.0,
        )
        recalled_HtD = recalled_NHtD.mean(0) if num_banks > 1 else recalled_NHtD[0]
        dtype = torch.promote_types(recalled_HtD.dtype, torch.float32)
        scale_H = torch.exp(SCALAR_GAIN * self.log_value_norm.to(dtype)).to(recalled_HtD.dtype)
        recalled_HtD = recalled_HtD * scale_H.view(-1, 1, 1)
        recalled_BTC = recalled_HtD.transpose(0, 1).flatten(1).unflatten(0, (batch, time))
        return self.dropout(self.o_proj(recalled_BTC))


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
        masks: dict[str, torch.Tensor | None],
        cache: Cache | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        recalled, _ = self.contextual_memory(
            self.contextual_norm(hidden_states), masks=masks, cache=cache, **kwargs
        )
        hidden_states = hidden_states + recalled
        recalled = self.persistent_memory(self.persistent_norm(hidden_states), masks, cache)
        return hidden_states + recalled


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
                `(batch, seen + time)`, packed sequences together with a mask or a cache, or a cache built for
                another model.
        """
        self._check_inputs(input_ids, inputs_embeds, attention_mask, cache)
        if inputs_embeds is None:
            inputs_embeds = self._embed(input_ids)
        for name in ("cu_seq_lens_k", "max_length_q", "max_length_k"):
            kwargs.pop(name, None)
        start_BT = find_sequence_starts(
            inputs_embeds, attention_mask, position_ids, cache, seq_idx, cu_seq_lens_q
        )
        if start_BT is not None:
            masks = create_packed_masks(self.config, inputs_embeds, start_BT)
        else:
            if use_cache and cache is None:
                cache = DynamicCache(config=self.config)
            elif cache is not None and is_prefix(cache):
                add_states(cache, self.config)
            masks = attention_mask
            if not isinstance(masks, dict):
                masks = self.create_masks_for_generate(self.config, inputs_embeds, attention_mask, cache)

        hidden_states = inputs_embeds
        for layer in self.layers:
            hidden_states = layer(hidden_states, masks=masks, cache=cache, **kwargs)
        return BaseModelOutputWithPast(last_hidden_state=self.norm(hidden_states), **{CACHE_NAME: cache})

    create_masks_for_generate = staticmethod(create_memory_masks)

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
        if isinstance(attention_mask, dict) and not attention_mask.keys() >= set(MASK_NAMES):
            raise ValueError(
                "a dict as attention_mask must be what create_masks_for_generate returns, with the keys "
                f"{', '.join(MASK_NAMES)}, not {', '.join(map(str, attention_mask)) or 'an empty one'}"
            )
        if cache is not None:
            self._check_cache(cache, inputs.shape[0])

    def _check_cache(self, cache: Cache, batch: int) -> None:
        layers = cache.layers if isinstance(cache, Cache) else []
        num_states = self.config.number_of_conv_states
        has_states = all(getattr(layer, "number_of_states", 0) == num_states for layer in layers)
        if len(layers) != len(self.layers) or not (has_states or is_prefix(cache)):
            raise ValueError(
                "cache (past_key_values) must hold keys, values and states of every layer: build it with "
                "DynamicCache(config=model.config) or StaticCache(config=model.config, ...), not "
                f"{cache if isinstance(cache, Cache) else type(cache).__name__}"
            )
        num_heads = self.config.num_attention_heads
        expected = (batch, num_heads, self.config.hidden_size // num_heads)
        for layer in layers if not is_tracing() else []:
            if layer.is_initialized and (found := (*layer.keys.shape[:2], layer.keys.shape[-1])) != expected:
                raise ValueError(
                    f"cache (past_key_values) holds memories of (batch, heads, head size) = {found}, but the "
                    f"model and its inputs have {expected}"
                )


def forget_missing_head(model: "MosaicForCausalLM", incompatible_keys) -> None:
    """Does not report the head as missing from a state dict that has the embedding it is tied to."""
    if model.lm_head.weight is not model.model.embed_tokens.weight:
        return
    missing = incompatible_keys.missing_keys
    for head in [name for name in missing if name.endswith("lm_head.weight")]:
        if head.replace("lm_head.weight", "model.embed_tokens.weight") not in missing:
            missing.remove(head)


class MosaicForCausalLM(MosaicPreTrainedModel, GenerationMixin):
    """A Memory Mosaic that predicts the next token: `logits = logit_scale * W x`, W tied to the embedding."""

    _auto_class = "AutoModelForCausalLM"
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}
    # What `loss_function` returns, unless it is set to another one.
    _loss_function = staticmethod(next_token_loss)

    def __init__(self, config: MosaicConfig):
        super().__init__(config)
        self.model = MosaicModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        # The Trainer loads checkpoints by `load_state_dict`, and files hold a tied weight once.
        self.register_load_state_dict_post_hook(forget_missing_head)
        self.post_init()

    create_masks_for_generate = staticmethod(create_memory_masks)

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
        hidden_states = slice_logits_to_keep(outputs.last_hidden_state, logits_to_keep)
        # The hidden states are smaller than the logits.
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

    def __init__(self, config: MosaicConfig):
        # The generic constructor asks AutoModel for the body, which would ask whether to trust remote code.
        MosaicPreTrainedModel.__init__(self, config)
        self.num_labels = config.num_labels
        self.model = MosaicModel(config)
        self.score = nn.Linear(config.hidden_size, config.num_labels, bias=False)
        self.post_init()


class MosaicForTokenClassification(GenericForTokenClassification, MosaicPreTrainedModel):
    """A Memory Mosaic with a linear layer on every token."""

    _auto_class = "AutoModelForTokenClassification"

    def __init__(self, config: MosaicConfig):
        MosaicPreTrainedModel.__init__(self, config)
        self.num_labels = config.num_labels
        self.model = MosaicModel(config)
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
