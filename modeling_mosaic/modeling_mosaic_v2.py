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
"""Memory Mosaics v2 (Zhang, Bottou; "Memory Mosaics at scale", arXiv 2507.03285).

The file follows the paper: the keys of its equation 8 and the bandwidth of equation 6, the values of equation
9, the short-term memory of equation 10 and the long-term memory, the persistent memory, the block, and the
models built from blocks. `plain_mosaic_v2.py` says the same in fewer words; there, reading begins. What the
two Memory Mosaics have in common is in `modeling_mosaic.py`.

Shapes: B batch, b batch or 1, T new tokens, S slots (T new ones behind those of the cache), C hidden size, H
heads, D head size; W columns of the short-term memory's window, of h pairs. A 1 in place of T is a single
token, H11 stands for `(heads, 1, 1)`. As in the first model, slot t holds pair t - 1, and slot 0 is a dummy
that no query may see.
"""

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F
from transformers import initialization as init
from transformers.cache_utils import Cache, DynamicCache
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs

from .configuration_mosaic_v2 import MosaicV2Config
from .gated_average import gated_average
from .memory_masks_v2 import WINDOW_KEYS, MemoryMasksV2, create_memory_masks_v2
from .memory_norms import DerivedScalars, MosaicPeekNorm, as_dtype, scaled_unit
from .memory_state import check_cache, is_prefix, read_state, repeat_over_padding, shift, write_state
from .modeling_mosaic import (
    MosaicForCausalLM,
    MosaicForSequenceClassification,
    MosaicForTokenClassification,
    MosaicModel,
    MosaicPreTrainedModel,
    attend,
    recall_causal,
    split_heads,
)

if TYPE_CHECKING:
    # Never imported, as in `modeling_mosaic.py`.
    from .mlx_mosaic_v2 import Model as Model

# The numbers of a cache's states: of each memory, its average with the log scale, and the key and the raw
# value of the pair that the next token completes; and the window of the short-term memory.
AVERAGE, LAST_KEY, LAST_VALUE = range(3)
SHORT_STATES, WINDOW_VALUES, LONG_STATES = 0, WINDOW_KEYS + 1, WINDOW_KEYS + 2
# Bounds on the scalars of the paper's table 6.
MAX_LOG_BETA, MAX_LOG_VALUE_SCALE = 10.0, 15.0
# Where the scalars start.
INITIAL_LOG_BETA, INITIAL_EXPONENT = 1.5, 1 / 3


def make_projection(in_features: int, out_features: int, layer_idx: int) -> nn.Linear:
    """A linear layer, marked with the number of its block, as deeper ones start smaller (table 6)."""
    projection = nn.Linear(in_features, out_features, bias=False)
    projection.block_number = layer_idx + 1
    return projection


class MosaicV2KeyNorm(nn.Module):
    """Gated leaky average of keys, normalised, and the queries: keys times their bandwidth (equations 6, 8).

    `k_T = Norm(g_T k~_T + lambda_T kbar_{T-1})`, asked with `beta(n) k_T` where n pairs are to be seen,
    `beta(n) = beta_1 n^alpha + beta_0`. Stored keys have unit length, as beta changes from query to query.

    It is called a norm also because the Trainer spares what is called so from weight decay, as in the first
    model.
    """

    def __init__(self, num_heads: int):
        super().__init__()
        self.log_beta_0 = nn.Parameter(torch.empty(num_heads))
        self.log_beta_1 = nn.Parameter(torch.empty(num_heads))
        self.exponent = nn.Parameter(torch.empty(num_heads))
        self.derived = DerivedScalars()

    def derive(self, log_beta_0_H, log_beta_1_H, exponent_H):
        """beta_0, beta_1 and alpha (table 6), and the length of stored keys, 1."""
        beta_0_H, beta_1_H = (
            torch.exp(log_beta_H.clamp(max=MAX_LOG_BETA)) for log_beta_H in (log_beta_0_H, log_beta_1_H)
        )
        scalars = (beta_0_H, beta_1_H, exponent_H.abs().clamp(max=1), torch.ones_like(exponent_H))
        return tuple(scalar_H.view(-1, 1, 1) for scalar_H in scalars)

    def forward(self, key_BHTD, log_gain_BHT, leak_BHT, log_pairs_b1T1, state_BH1E, masks):
        """Queries and keys in the precision of `key_BHTD`, and `(average, log scale)` in full precision."""
        state = None if state_BH1E is None else (state_BH1E[:, :, 0, :-1], state_BH1E[:, :, 0, -1])
        average_BHTD, log_scale_BHT = gated_average(
            key_BHTD, log_gain_BHT, leak_BHT, state, keep_BT=masks["keep"], start_BT=masks["start"]
        )
        beta_0_H11, beta_1_H11, exponent_H11, length_H11 = self.derived.get(
            self.derive, self.log_beta_0, self.log_beta_1, self.exponent
        )
        unit_BHTD = scaled_unit(average_BHTD, length_H11)
        # n^alpha, from the log of n.
        power_bHT1 = torch.exp(exponent_H11 * log_pairs_b1T1)
        query_BHTD = unit_BHTD * torch.addcmul(beta_0_H11, beta_1_H11, power_bHT1)
        query_BHTD, key_BHTD = (as_dtype(x, key_BHTD.dtype) for x in (query_BHTD, unit_BHTD))
        return query_BHTD, key_BHTD, (average_BHTD, log_scale_BHT)


class MosaicV2PeekNorm(MosaicPeekNorm):
    """Values that peek ahead: `v_T = alpha_psi Norm(gamma v~_T + (1 - gamma) v~_{T+1})` (equation 9).

    As in the first model, but that the log of alpha_psi has a bound, and is stored as it is. Table 6 takes
    its absolute value, whose gradient is 0 where training starts: alpha_psi would stay 1.
    """

    def derive(self, mix_H, log_scale_H):
        """gamma and alpha_psi."""
        scale_H = torch.exp(log_scale_H.clamp(max=MAX_LOG_VALUE_SCALE))
        return mix_H.view(-1, 1, 1), scale_H.view(-1, 1, 1)


class MosaicV2Memory(nn.Module):
    """What the two contextual memories of a layer have in common, with parameters of their own (footnote 7).

    Each adds its part of the output projection: that of the paper, of both memories side by side, is the sum.
    """

    # What its masks are called, and the number of its first state.
    name: str
    first_state: int

    def __init__(self, config: MosaicV2Config, layer_idx: int):
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.num_heads = config.num_attention_heads
        self.attention_dropout = config.attention_dropout
        self.is_causal = True
        width = config.hidden_size
        self.k_proj = make_projection(width, width, layer_idx)
        self.v_proj = make_projection(width, width, layer_idx)
        # W_g and W_lambda of equation 8.
        self.gain_proj = make_projection(width, self.num_heads, layer_idx)
        self.leak_proj = make_projection(width, self.num_heads, layer_idx)
        self.key_norm = MosaicV2KeyNorm(self.num_heads)
        self.peek_norm = MosaicV2PeekNorm(self.num_heads)
        self.o_proj = make_projection(width, width, layer_idx)

    def forward(
        self,
        hidden_states: torch.Tensor,
        masks: MemoryMasksV2,
        cache: Cache | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Arguments and results as for [`MosaicV2ContextualMemory`]; weights are those of slots."""
        raise NotImplementedError

    def extract(self, hidden_states: torch.Tensor, masks: MemoryMasksV2, cache: Cache | None):
        """Extracts queries, and keys and values of the pairs that new tokens complete (equations 8, 9).

        Returns:
            `tuple`: queries, keys and values `(batch, heads, time, head_dim)`, and the states after the new
            tokens. Without a mask and a cache there is no dummy slot in front: keys and values have one step
            less.
        """
        batch, time, width = hidden_states.shape
        states = cache if masks["continues"] else None
        last_average, last_key, last_value = (
            read_state(states, self.layer_idx, self.first_state + number, self.num_heads)
            for number in (AVERAGE, LAST_KEY, LAST_VALUE)
        )
        # Two dimensions, since a linear layer takes fewer operations for them.
        hidden_nC = hidden_states.view(-1, width)
        key_BHTD = split_heads(self.k_proj(hidden_nC), self.num_heads, time)
        value_BHTD = split_heads(self.v_proj(hidden_nC), self.num_heads, time)
        log_gain_BHT, leak_BHT = (
            projection(hidden_nC).view(batch, time, self.num_heads).transpose(1, 2)
            for projection in (self.gain_proj, self.leak_proj)
        )
        query_BHTD, key_BHTD, average = self.key_norm(
            key_BHTD, log_gain_BHT, leak_BHT.abs(), masks[f"{self.name}_log_pairs"], last_average, masks
        )
        if last_key is None and (cache is not None or masks[self.name] is not None):
            # What fills the dummy slot.
            last_key = last_value = torch.zeros_like(value_BHTD[:, :, :1])
        elif last_key is not None:
            last_key, last_value = as_dtype(last_key, key_BHTD.dtype), as_dtype(last_value, value_BHTD.dtype)
        if masks["keep"] is not None:
            value_BHTD = repeat_over_padding(last_value, value_BHTD, masks["keep"])
        newer_BHTD = value_BHTD if last_value is not None else value_BHTD[:, :, 1:]
        key_BHSD, older_BHSD = shift(last_key, key_BHTD), shift(last_value, value_BHTD)
        return query_BHTD, key_BHSD, self.peek_norm(older_BHSD, newer_BHTD), (average, key_BHTD, value_BHTD)

    def write_states(self, states, cache: Cache) -> None:
        """Hands the states that [`extract`] returns to the cache, in place of those that it has read."""
        (average_BHTD, log_scale_BHT), key_BHTD, value_BHTD = states
        steps = slice(None) if cache.layers[self.layer_idx].record_past else slice(-1, None)
        average_BHTE = torch.cat([average_BHTD[:, :, steps], log_scale_BHT[:, :, steps, None]], -1)
        for number, state_BHTD in enumerate((average_BHTE, key_BHTD, value_BHTD)):
            write_state(cache, self.layer_idx, self.first_state + number, state_BHTD)

    def recall(self, query_BHTD, key_BHSD, value_BHSD, masks, num_seen: int | None, skipped=0, **kwargs):
        """Recalls what the memory holds for each query.

        Args:
            query_BHTD, key_BHSD, value_BHSD (`torch.Tensor`): queries, keys and values.
            masks (`MemoryMasksV2`): which slots each query sees.
            num_seen (`int`, *optional*): how many the last query sees, if attention is plain causal.
            skipped (`int`): how many of the latest slots that one does not see.
            kwargs: for [`attend`].

        Returns:
            `tuple`: answers `(batch, time, heads, head_dim)`, 0 where the memory is empty, and weights or
            `None`.
        """
        mask = masks[self.name]
        if mask is None:
            until = key_BHSD.shape[2] - skipped
            num_empty = max(query_BHTD.shape[2] - num_seen, 0)
            seen = slice(max(until - num_seen, 0), max(until, 0))
            query_BHTD, key_BHSD, value_BHSD = (
                query_BHTD[:, :, num_empty:],
                key_BHSD[:, :, seen],
                value_BHSD[:, :, seen],
            )
            return recall_causal(self, query_BHTD, key_BHSD, value_BHSD, num_empty, **kwargs), None
        recalled_BTHD, weights = attend(self, query_BHTD, key_BHSD, value_BHSD, mask, **kwargs)
        # Attention over no slots is implementation-defined.
        return recalled_BTHD.masked_fill(masks[f"{self.name}_empty"], 0), weights

    def project(self, recalled_BTHD: torch.Tensor) -> torch.Tensor:
        """What the memory adds to the residual stream."""
        batch, time, num_heads, head_dim = recalled_BTHD.shape
        width = num_heads * head_dim
        return self.o_proj(recalled_BTHD.reshape(-1, width)).view(batch, time, width)


class MosaicV2ShortMemory(MosaicV2Memory):
    """A layer of short-term memories: the pairs t - h to t - 1 (equation 10 and figure 11).

    A cache keeps the window, h - 1 pairs, as convolution states; the last pair is still to be completed.
    """

    name, first_state = "short", SHORT_STATES

    def forward(self, hidden_states, masks, cache=None, **kwargs):
        query, key, value, last = self.extract(hidden_states, masks, cache)
        if cache is not None:
            key, value = (
                self.extend_window(states, cache, state_idx, masks)
                for states, state_idx in ((key, WINDOW_KEYS), (value, WINDOW_VALUES))
            )
            self.write_states(last, cache)
        if masks["blocks"]:
            return self.project(self.recall_by_blocks(query, key, value, masks, **kwargs)), None
        recalled, weights = self.recall(query, key, value, masks, masks["num_short"], **kwargs)
        return self.project(recalled), weights

    def extend_window(self, states_BHTD, cache: Cache, state_idx: int, masks: MemoryMasksV2) -> torch.Tensor:
        """The window's columns, the new ones behind those of the cache, which keeps the last h - 1."""
        layer, num_kept = cache.layers[self.layer_idx], masks["num_kept"]
        states_BCT, kept_BCW = states_BHTD.transpose(2, 3).flatten(1, 2), layer.conv_states[state_idx]
        num_columns = masks["num_cached"] + states_BCT.shape[-1]
        if kept_BCW is None or layer.record_past:
            window_BCW = cache.update_conv_state(
                states_BCT, self.layer_idx, state_idx=state_idx, conv_kernel_size=num_kept
            )
        else:
            window_BCW = torch.cat([kept_BCW.to(states_BCT.dtype), states_BCT], -1)
        if not cache.is_compileable:
            # What stays when the cache is cropped.
            layer.conv_kernel_size[state_idx] = num_kept
            if not layer.record_past:
                # Not in place, as in `write_state`; a copy, for the rest of the window not to stay with it.
                layer.conv_states[state_idx] = window_BCW[..., -min(num_kept, num_columns) :].clone()
        elif kept_BCW is not None:
            kept_BCW.copy_(window_BCW[..., -num_kept:])
        return window_BCW[..., -num_columns:].unflatten(1, (self.num_heads, -1)).transpose(2, 3)

    def recall_by_blocks(self, query_BHTD, key_BHWD, value_BHWD, masks, **kwargs) -> torch.Tensor:
        """`recall` for more queries than the memory has pairs, in memory that grows with their number only.

        Each block of h queries gets the columns of its own tokens and the h before them.
        """
        size, time = self.config.short_memory_size, query_BHTD.shape[2]
        fill = -time % size
        before = size - (key_BHWD.shape[2] - time)

        def as_blocks(states_BHTD, before=0):
            padded_BHTD = F.pad(states_BHTD, (0, 0, before, fill))
            return padded_BHTD.unflatten(2, (-1, size)).transpose(1, 2)

        query_nHhD = as_blocks(query_BHTD).flatten(0, 1)
        key_nHSD, value_nHSD = (
            torch.cat([blocks[:, :-1], blocks[:, 1:]], 3).flatten(0, 1)
            for blocks in (as_blocks(key_BHWD, before), as_blocks(value_BHWD, before))
        )
        recalled_nhHD, _ = attend(self, query_nHhD, key_nHSD, value_nHSD, masks["short"], **kwargs)
        recalled_BTHD = recalled_nhHD.unflatten(0, (query_BHTD.shape[0], -1)).flatten(1, 2)[:, :time]
        return recalled_BTHD.masked_fill(masks["short_empty"], 0)


class MosaicV2LongMemory(MosaicV2Memory):
    """A layer of long-term memories: the pairs 1 to t - m, which the cache keeps as keys and values."""

    name, first_state = "long", LONG_STATES

    def forward(self, hidden_states, masks, cache=None, **kwargs):
        query, key, value, last = self.extract(hidden_states, masks, cache)
        if cache is not None:
            key, value = cache.update(key, value, self.layer_idx)
            self.write_states(last, cache)
        if hasattr(cache, "answer"):
            # It bounds or searches what it stores.
            recall_bT = ~masks["long_empty"][:, :, 0, 0]
            recalled, weights = cache.answer(query, recall_bT, masks["keep"], self.layer_idx)
        else:
            skipped = 0 if masks["long"] is not None else masks["delay"] - 1
            recalled, weights = self.recall(query, key, value, masks, masks["num_long"], skipped, **kwargs)
        return self.project(recalled), weights


class MosaicV2ContextualMemory(nn.Module):
    """The contextual memories of a layer: short-term and long-term ones side by side."""

    def __init__(self, config: MosaicV2Config, layer_idx: int):
        super().__init__()
        self.layer_idx = layer_idx
        self.short_memory = MosaicV2ShortMemory(config, layer_idx)
        # CODEPATH: the paper trains both; its tables 2, 9 and 10 then leave the long-term memory out.
        self.long_memory = MosaicV2LongMemory(config, layer_idx) if config.use_long_memory else None
        self.dropout = nn.Dropout(config.hidden_dropout)

    def forward(
        self,
        hidden_states: torch.Tensor,
        masks: MemoryMasksV2,
        cache: Cache | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """
        Args:
            hidden_states (`torch.Tensor` of shape `(batch, time, hidden)`): normed residual stream.
            masks (`MemoryMasksV2`): which slots each token may see.
            cache (`Cache`, *optional*): memories so far; updated in place.

        Returns:
            What the memories recall, `(batch, time, hidden)`, and the weight of each pair if the attention
            implementation returns weights: `(batch, 2 * heads, time, slots)`, short-term memories first, and
            column i is pair i; without long-term memory `(batch, heads, time, columns of the window)`. A
            cache that answers by itself holds other pairs for each unit: then there are none.
        """
        recalled, weights = self.short_memory(hidden_states, masks, cache, **kwargs)
        if self.long_memory is None:
            if cache is not None:
                # What tells how many tokens the cache has seen.
                count_B1T1 = hidden_states.new_zeros(*hidden_states.shape[:2], 1)[:, None]
                cache.update(count_B1T1, count_B1T1, self.layer_idx)
            return self.dropout(recalled), weights
        recalled_long, weights_long = self.long_memory(hidden_states, masks, cache, **kwargs)
        if masks["columns"] is None:
            return self.dropout(recalled + recalled_long), None
        weights = torch.cat([spread_over_slots(weights, masks["columns"]), weights_long], 1)
        return self.dropout(recalled + recalled_long), weights


def spread_over_slots(weights_BHTW: torch.Tensor, columns_bS: torch.Tensor) -> torch.Tensor:
    """Weights of the window's columns as those of all pairs, `(batch, heads, time, slots)`.

    The eager attention has the dummy slot last, for column i to be pair i.
    """
    weights_BHTW = weights_BHTW.roll(1, -1)
    index_BHTS = columns_bS.clamp(min=0)[:, None, None].expand(*weights_BHTW.shape[:3], -1)
    return weights_BHTW.gather(-1, index_BHTS).masked_fill((columns_bS < 0)[:, None, None], 0).roll(-1, -1)


class MosaicV2PersistentMemory(nn.Module):
    """A layer's persistent memory: `W_2 (SiLU(W_1 x) * W_3 x)`, the feed-forward network of a Llama."""

    def __init__(self, config: MosaicV2Config, layer_idx: int):
        super().__init__()
        self.gate_proj = make_projection(config.hidden_size, config.intermediate_size, layer_idx)
        self.up_proj = make_projection(config.hidden_size, config.intermediate_size, layer_idx)
        self.down_proj = make_projection(config.intermediate_size, config.hidden_size, layer_idx)
        self.dropout = nn.Dropout(config.hidden_dropout)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        hidden_nC = hidden_states.view(-1, hidden_states.shape[-1])
        recalled_nC = self.down_proj(F.silu(self.gate_proj(hidden_nC)) * self.up_proj(hidden_nC))
        return self.dropout(recalled_nC.view(hidden_states.shape))


class MosaicV2Block(GradientCheckpointingLayer):
    """`x += contextual(RMSNorm(x)); x += persistent(RMSNorm(x))` (paper, figure 2)."""

    def __init__(self, config: MosaicV2Config, layer_idx: int):
        super().__init__()
        self.contextual_norm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.contextual_memory = MosaicV2ContextualMemory(config, layer_idx)
        self.persistent_norm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.persistent_memory = MosaicV2PersistentMemory(config, layer_idx)

    def forward(
        self,
        hidden_states: torch.Tensor,
        masks: MemoryMasksV2,
        cache: Cache | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        recalled, _ = self.contextual_memory(
            self.contextual_norm(hidden_states), masks=masks, cache=cache, **kwargs
        )
        hidden_states = hidden_states + recalled
        return hidden_states + self.persistent_memory(self.persistent_norm(hidden_states))


# trf-ignore: TRF057, as in `modeling_mosaic.py`.
class MosaicV2PreTrainedModel(MosaicPreTrainedModel):
    """What all Memory Mosaics v2 share: capabilities and initialisation."""

    config: MosaicV2Config
    config_class = MosaicV2Config
    _no_split_modules = ["MosaicV2Block"]
    _supports_flash_attn = False
    _can_record_outputs = {"hidden_states": MosaicV2Block, "attentions": MosaicV2ContextualMemory}
    # A model without long-term memory may come from the weights of one that has it.
    _keys_to_ignore_on_load_unexpected = [r"\.long_memory\."]
    create_masks_for_generate = staticmethod(create_memory_masks_v2)
    _masks_class = MemoryMasksV2

    # The first model's own would take linear layers for its own ones. trf-ignore: TRF018
    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialises as the paper's table 6 has it; classification heads as the paper's classifier."""
        if isinstance(module, nn.Linear | nn.Embedding):
            # The part of the output projection that a memory adds has half of its inputs: as many as table 6
            # says.
            width = module.embedding_dim if isinstance(module, nn.Embedding) else module.in_features
            std = self.config.initializer_factor * (2 * width * getattr(module, "block_number", 1)) ** -0.5
            init.copy_(module.weight, torch.randn_like(module.weight).mul_(std).clamp_(-3 * std, 3 * std))
            if getattr(module, "bias", None) is not None:
                init.zeros_(module.bias)
        elif isinstance(module, MosaicV2KeyNorm):
            init.constant_(module.log_beta_0, INITIAL_LOG_BETA)
            init.constant_(module.log_beta_1, INITIAL_LOG_BETA)
            init.constant_(module.exponent, INITIAL_EXPONENT)
        elif isinstance(module, MosaicV2PeekNorm):
            init.uniform_(module.mix)
            init.zeros_(module.log_scale)
        elif isinstance(module, nn.RMSNorm):
            init.ones_(module.weight)
        else:
            PreTrainedModel._init_weights(self, module)


# trf-ignore: TRF057
class MosaicV2Model(MosaicV2PreTrainedModel, MosaicModel):
    """Embedding, blocks and a last norm: a Memory Mosaic v2 without a head (paper, figure 2)."""

    _auto_class = "AutoModel"

    def __init__(self, config: MosaicV2Config):
        config.validate_architecture()
        PreTrainedModel.__init__(self, config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            [MosaicV2Block(config, layer_idx) for layer_idx in range(config.num_hidden_layers)]
        )
        self.norm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.gradient_checkpointing = False
        self.post_init()

    def _create_masks(self, inputs_embeds, attention_mask, cache, start_BT) -> MemoryMasksV2:
        return create_memory_masks_v2(
            self.config,
            inputs_embeds,
            attention_mask,
            cache,
            start_BT=start_BT,
            delay=self._draw_delay(inputs_embeds.device) if self.training else None,
        )

    def _draw_delay(self, device: torch.device) -> int | torch.Tensor:
        """The m of a training step, for all layers alike, which may be run again for their gradients.

        A compiled graph draws it anew each time, as a tensor, and so with a mask of all tokens and slots.
        """
        least, largest = self.config.long_memory_delay_range
        if torch.compiler.is_compiling():
            return torch.randint(least, largest + 1, (), device=device)
        return int(torch.randint(least, largest + 1, ()))

    def _prepare_cache(self, cache: Cache, batch: int) -> None:
        """As in the first model, but that a prefix, of the long-term memory, needs no states."""
        check_cache(cache, self.config, batch)
        if is_prefix(cache):
            complete = DynamicCache(config=self.config)
            for layer_idx, layer in enumerate(cache.layers):
                complete.update(layer.keys, layer.values, layer_idx)
            cache.layers = complete.layers


# trf-ignore: TRF057
class MosaicV2ForCausalLM(MosaicV2PreTrainedModel, MosaicForCausalLM):
    """A Memory Mosaic v2 that predicts the next token: `logits = logit_scale * W x`."""

    _body_class = MosaicV2Model


# trf-ignore: TRF057
class MosaicV2ForSequenceClassification(MosaicV2PreTrainedModel, MosaicForSequenceClassification):
    """A Memory Mosaic v2 with a linear layer on the last token that is not padding."""

    _body_class = MosaicV2Model


# trf-ignore: TRF057
class MosaicV2ForTokenClassification(MosaicV2PreTrainedModel, MosaicForTokenClassification):
    """A Memory Mosaic v2 with a linear layer on every token."""

    _body_class = MosaicV2Model


# As in `modeling_mosaic.py`.
MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.setdefault(MosaicV2Config.model_type, MosaicV2ForCausalLM.__name__)


__all__ = [
    "MosaicV2ForCausalLM",
    "MosaicV2ForSequenceClassification",
    "MosaicV2ForTokenClassification",
    "MosaicV2Model",
    "MosaicV2PreTrainedModel",
]
