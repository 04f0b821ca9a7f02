"""The memories of a Memory Mosaic in vLLM. `../modeling_mosaic.py` says what they are.

Shapes: n tokens of R requests, C hidden size, H heads, D head size, M persistent pairs, N banks; H heads
and their C dimensions are those of this process, where several share them. P is the padded head size.

Slot t of a request holds its pair t - 1, as in the cache of `generate()`: slot 0 is a dummy. vLLM's
attention takes no mask that would hide it. An additional dimension of queries and keys does so: its product
is 0 for all pairs, and below that of any pair for the dummy. Where there is nothing else, the dummy is all
that a query sees: its value is 0, as the answer of an empty memory is.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F
from vllm.distributed import get_tensor_model_parallel_world_size
from vllm.model_executor.layers.attention import Attention
from vllm.model_executor.layers.linear import ColumnParallelLinear, RowParallelLinear
from vllm.model_executor.model_loader.weight_utils import sharded_weight_loader
from vllm.model_executor.utils import set_weight_attrs

from ..memory_norms import MosaicLeakyNorm, MosaicPeekNorm, as_dtype, in_full_precision
from ..modeling_mosaic import MosaicPersistentMemory
from .configuration import padded_head_size


def count_local_heads(num_heads: int) -> int:
    """How many of the heads are this process's."""
    return num_heads // get_tensor_model_parallel_world_size()


def shard_parameters(module: nn.Module, axis: int = 0) -> nn.Module:
    """Makes a module's own parameters load this process's heads alone, which stand along `axis`."""
    for parameter in module.parameters(recurse=False):
        set_weight_attrs(parameter, {"weight_loader": sharded_weight_loader(axis)})
    return module


class ParallelKeyExtractor(nn.Module):
    """`MosaicKeyExtractor` for packed requests and for some of the heads."""

    def __init__(self, config, num_heads: int, power: int, prefix: str):
        super().__init__()
        self.num_heads = count_local_heads(num_heads)
        self.k_proj = ColumnParallelLinear(
            config.hidden_size, config.hidden_size, bias=config.use_bias, prefix=f"{prefix}.k_proj"
        )
        self.leaky_norm = shard_parameters(MosaicLeakyNorm(self.num_heads, config.max_log_key_scale, power))

    def average(self, key_nC, state_RC, requests) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys `(n, H, D)` of projections, and the averages behind them; `state_RC` are those of before."""
        key_nHD, state_RHD = (states.unflatten(-1, (self.num_heads, -1)) for states in (key_nC, state_RC))
        if requests.is_decode:
            key_nH1D, average_nH1D = self.leaky_norm(key_nHD[:, :, None], state_RHD[:, :, None])
            return key_nH1D[:, :, 0], average_nH1D[:, :, 0]
        # What the past leaves is part of the first key, as each average starts anew with it.
        leaky_norm = self.leaky_norm
        _, decay_H11, _ = leaky_norm.derived.get(leaky_norm.derive, leaky_norm.leak, leaky_norm.log_scale)
        series_nHD = in_full_precision(key_nHD).index_add(0, requests.first_R, decay_H11[:, 0] * state_RHD)
        key_1HnD, average_1HnD = leaky_norm(
            series_nHD.transpose(0, 1)[None], start_BT=requests.start_1n, elapsed=requests.elapsed
        )
        return as_dtype(key_1HnD[0], key_nC.dtype).transpose(0, 1), average_1HnD[0].transpose(0, 1)


def shift(states_nHD, last_RC, requests) -> torch.Tensor:
    """Moves states one token later within each request, whose last one of before comes first."""
    last_RHD = as_dtype(last_RC, states_nHD.dtype).view(-1, *states_nHD.shape[1:])
    if requests.is_decode:
        return last_RHD
    return states_nHD.roll(1, 0).index_copy(0, requests.first_R, last_RHD)


class ParallelContextualMemory(nn.Module):
    """`MosaicContextualMemory` for packed requests and for some of the heads."""

    def __init__(self, vllm_config, prefix: str):
        super().__init__()
        config = vllm_config.model_config.hf_config
        self.num_heads = count_local_heads(config.num_attention_heads)
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.padded_dim = padded_head_size(config)
        # Its square is above the product of any query and key.
        self.bar = 2 * math.exp(config.max_log_key_scale) + 100
        self.key_extractor = ParallelKeyExtractor(
            config, config.num_attention_heads, 1, f"{prefix}.key_extractor"
        )
        self.v_proj = ColumnParallelLinear(
            config.hidden_size, config.hidden_size, bias=config.use_bias, prefix=f"{prefix}.v_proj"
        )
        self.peek_norm = shard_parameters(MosaicPeekNorm(self.num_heads))
        self.o_proj = RowParallelLinear(
            config.hidden_size, config.hidden_size, bias=config.use_bias, prefix=f"{prefix}.o_proj"
        )
        self.attn = Attention(
            self.num_heads,
            self.padded_dim,
            1.0,
            num_kv_heads=self.num_heads,
            cache_config=vllm_config.cache_config,
            prefix=f"{prefix}.attn",
        )

    def forward(self, hidden_nC: torch.Tensor, layer_name: str) -> torch.Tensor:
        key_nC, value_nC = (proj(hidden_nC)[0] for proj in (self.key_extractor.k_proj, self.v_proj))
        query_nP, key_nP, value_nP = (
            hidden_nC.new_zeros(len(hidden_nC), self.num_heads * self.padded_dim) for _ in range(3)
        )
        torch.ops.vllm.mosaic_store_pairs(key_nC, value_nC, query_nP, key_nP, value_nP, layer_name)
        recalled_nHP = self.attn(query_nP, key_nP, value_nP).view(-1, self.num_heads, self.padded_dim)
        return self.o_proj(recalled_nHP[..., : self.head_dim].flatten(1))[0]

    def store(self, key_nC, value_nC, states, requests, outputs) -> tuple[torch.Tensor, ...]:
        """Completes pairs (equation 7) and writes queries, keys and values of slots to `outputs`.

        Args:
            states: the average, the key and the raw value after the last token of before, `(R, C)` each.

        Returns:
            The same three after each token.
        """
        average_RC, last_key_RC, last_value_RC = states
        query_nHD, average_nHD = self.key_extractor.average(key_nC, average_RC, requests)
        value_nHD = value_nC.unflatten(-1, (self.num_heads, -1))
        older_nHD = shift(value_nHD, last_value_RC, requests)
        peeked_1HnD = self.peek_norm(*(x.transpose(0, 1)[None] for x in (older_nHD, value_nHD)))
        slots = [query_nHD, shift(query_nHD, last_key_RC, requests), peeked_1HnD[0].transpose(0, 1)]
        query_nHP, key_nHP, slot_value_nHP = (
            output.view(-1, self.num_heads, self.padded_dim)[: requests.num_tokens] for output in outputs
        )
        query_nHP[..., self.head_dim] = self.bar
        if not requests.is_decode:
            slots[2] = slots[2].masked_fill(requests.is_dummy_n11, 0)
            key_nHP[..., self.head_dim] = requests.is_dummy_n11[..., 0] * -self.bar
        for slot_nHP, slot_nHD in zip((query_nHP, key_nHP, slot_value_nHP), slots, strict=True):
            slot_nHP[..., : self.head_dim] = slot_nHD
        return average_nHD, query_nHD, value_nHD


class ParallelPersistentMemory(nn.Module):
    """`MosaicPersistentMemory` for packed requests and for some of the heads."""

    derive = MosaicPersistentMemory.derive

    def __init__(self, config, prefix: str):
        super().__init__()
        self.num_heads = count_local_heads(config.num_persistent_heads)
        self.key_extractor = ParallelKeyExtractor(
            config, config.num_persistent_heads, 2, f"{prefix}.key_extractor"
        )
        head_dim = config.hidden_size // config.num_persistent_heads
        shape_NHMD = (config.num_persistent_banks, self.num_heads, config.persistent_memory_size, head_dim)
        self.memory_keys = nn.Parameter(torch.empty(shape_NHMD))
        self.memory_values = nn.Parameter(torch.empty(shape_NHMD))
        shard_parameters(self, axis=1)
        self.log_value_norm = nn.Parameter(torch.empty(self.num_heads))
        set_weight_attrs(self.log_value_norm, {"weight_loader": sharded_weight_loader(0)})
        self.o_proj = RowParallelLinear(
            config.hidden_size, config.hidden_size, bias=config.use_bias, prefix=f"{prefix}.o_proj"
        )

    def forward(self, hidden_nC: torch.Tensor, layer_name: str) -> torch.Tensor:
        key_nC, _ = self.key_extractor.k_proj(hidden_nC)
        query_nC = torch.zeros_like(key_nC)
        torch.ops.vllm.mosaic_average_queries(key_nC, query_nC, layer_name)
        query_HnD = query_nC.unflatten(-1, (self.num_heads, -1)).transpose(0, 1)
        recalled_NHnD = F.scaled_dot_product_attention(
            query_HnD.expand(len(self.memory_keys), -1, -1, -1),
            self.memory_keys,
            self.memory_values,
            scale=1.0,
        )
        (scale_H11,) = self.derive(in_full_precision(self.log_value_norm))
        recalled_HnD = recalled_NHnD.mean(0) * as_dtype(scale_H11, query_HnD.dtype)
        return self.o_proj(recalled_HnD.transpose(0, 1).flatten(1))[0]
