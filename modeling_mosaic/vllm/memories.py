"""The memories of a Memory Mosaic in vLLM. `../modeling_mosaic.py` says what they are.

Shapes: n tokens of R requests, C hidden size, H heads, D head size, M persistent pairs, N banks; H heads
and their C dimensions are those of this process, where several share them. P is the padded head size.

Slot t of a request holds its pair t - m, with m = 1 in the first model, as in the cache of `generate()`:
the first m slots are dummies. vLLM's attention takes no mask that would hide them. An additional dimension
of queries and keys does so: its product is 0 for all pairs, and below that of any pair for a dummy. Where
there is nothing else, dummies are all that a query sees: their value is 0, as the answer of an empty memory
is.
"""

import math
from typing import NamedTuple

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

# How far the product of a query and a dummy is below that of any pair, in nats, at least.
MARGIN = 100.0


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

    def average(self, key_nC: torch.Tensor, state: torch.Tensor, requests) -> torch.Tensor:
        """Keys `(n, H, D)` of projections; the averages behind them go on from `state`."""
        key_nHD, state_RHD = (
            in_full_precision(x).unflatten(-1, (self.num_heads, -1)) for x in (key_nC, requests.read(state))
        )
        # A state in front of a request's tokens is what its averages start with.
        series, last, start = requests.as_series(state_RHD, key_nHD)
        key, average = self.leaky_norm(series, last, start_BT=start, elapsed=requests.elapsed)
        requests.write(state, requests.from_series(average))
        return as_dtype(requests.from_series(key), key_nC.dtype)


class State(NamedTuple):
    """What vLLM keeps of each request: its shape and precision."""

    shape: tuple[int, ...]
    dtype: torch.dtype


class ParallelMemory(nn.Module):
    """Contextual memories of a layer, for packed requests and for some of the heads.

    What both models have in common: they differ in their keys, and in the pairs that a query sees.
    """

    # The number of its first state among those of a block.
    first_state = 0
    # How many numbers go with the average of a head.
    numbers_per_average = 0
    peek_norm: MosaicPeekNorm
    # The greatest length of a stored key.
    longest_key: float

    def __init__(self, vllm_config, block_name: str, name: str, window: int | None = None):
        super().__init__()
        config = vllm_config.model_config.hf_config
        self.block_name, self.name, prefix = block_name, name, f"{block_name}.{name}"
        self.delay = self.get_delay(config)
        self.num_heads = count_local_heads(config.num_attention_heads)
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.padded_dim = padded_head_size(config)
        width, bias = config.hidden_size, getattr(config, "use_bias", False)
        self.v_proj = ColumnParallelLinear(width, width, bias=bias, prefix=f"{prefix}.v_proj")
        self.o_proj = RowParallelLinear(width, width, bias=bias, prefix=f"{prefix}.o_proj")
        self.attn = Attention(
            self.num_heads,
            self.padded_dim,
            1.0,
            num_kv_heads=self.num_heads,
            cache_config=vllm_config.cache_config,
            per_layer_sliding_window=window,
            prefix=f"{prefix}.attn",
        )

    @classmethod
    def get_delay(cls, config) -> int:
        """How many tokens old a pair is when queries begin to see it."""
        return 1

    @classmethod
    def get_states(cls, vllm_config) -> list[State]:
        """The average, and the last keys and raw values, of pairs that are not yet in a slot."""
        config, size = vllm_config.model_config.hf_config, vllm_config.parallel_config.tensor_parallel_size
        width = config.hidden_size // size
        numbers = cls.numbers_per_average * config.num_attention_heads // size
        ring = State((cls.get_delay(config), width), vllm_config.model_config.dtype)
        return [State((width + numbers,), torch.float32), ring, ring]

    def project(self, hidden_nC: torch.Tensor) -> list[torch.Tensor]:
        """The inputs of `extract_keys`, the raw values being the last."""
        raise NotImplementedError

    def extract_keys(self, projected, state, requests) -> tuple[torch.Tensor, torch.Tensor]:
        """Queries and keys of the tokens, `(n, H, D)`; averages go on from `state`."""
        raise NotImplementedError

    def forward(self, hidden_nC: torch.Tensor) -> torch.Tensor:
        slots = [hidden_nC.new_zeros(len(hidden_nC), self.num_heads * self.padded_dim) for _ in range(3)]
        torch.ops.vllm.mosaic_store_pairs(self.project(hidden_nC), *slots, self.block_name, self.name)
        recalled_nHP = self.attn(*slots).view(-1, self.num_heads, self.padded_dim)
        return self.o_proj(recalled_nHP[..., : self.head_dim].flatten(1))[0]

    def store(self, projected, states, requests, outputs) -> None:
        """Completes pairs (equation 7, or 9 of v2) and writes queries, keys and values of slots.

        Args:
            projected: what [`project`] returns.
            states: those of [`get_states`], in vLLM's cache; updated in place.
            requests: whose the tokens are.
            outputs: queries, keys and values `(n, H * P)`, filled with 0; more of them than tokens, maybe.
        """
        average, last_keys, last_values = states
        value_nHD = projected[-1].unflatten(-1, (self.num_heads, -1))
        query_nHD, key_nHD = self.extract_keys(projected, average, requests)
        older_nHD, newer_nHD = (
            requests.delay(value_nHD, last_values, steps) for steps in (self.delay, self.delay - 1)
        )
        peeked_1HnD = self.peek_norm(*(x.transpose(0, 1)[None] for x in (older_nHD, newer_nHD)))
        is_dummy_n11 = (requests.position_n < self.delay)[:, None, None]
        older_key_nHD = requests.delay(key_nHD, last_keys, self.delay).masked_fill(is_dummy_n11, 0)
        older_value_nHD = peeked_1HnD[0].transpose(0, 1).masked_fill(is_dummy_n11, 0)
        requests.keep(key_nHD, last_keys)
        requests.keep(value_nHD, last_values)
        query_nHP, key_nHP, value_nHP = (
            output.view(-1, self.num_heads, self.padded_dim)[: requests.num_tokens] for output in outputs
        )
        query_nHP[..., : self.head_dim] = query_nHD
        key_nHP[..., : self.head_dim] = older_key_nHD
        value_nHP[..., : self.head_dim] = older_value_nHD
        # The product of a query and a pair is at least that of their lengths, negative.
        query_nHP[..., self.head_dim] = torch.linalg.vector_norm(query_nHD, dim=-1) + MARGIN / 2
        key_nHP[..., self.head_dim] = is_dummy_n11[..., 0] * (-2 * max(self.longest_key, 1))


class ParallelContextualMemory(ParallelMemory):
    """`MosaicContextualMemory` for packed requests and for some of the heads."""

    def __init__(self, vllm_config, block_name: str, name: str):
        super().__init__(vllm_config, block_name, name)
        config = vllm_config.model_config.hf_config
        self.key_extractor = ParallelKeyExtractor(
            config, config.num_attention_heads, 1, f"{block_name}.{name}.key_extractor"
        )
        self.peek_norm = shard_parameters(MosaicPeekNorm(self.num_heads))
        self.longest_key = math.exp(config.max_log_key_scale)

    def project(self, hidden_nC):
        return [proj(hidden_nC)[0] for proj in (self.key_extractor.k_proj, self.v_proj)]

    def extract_keys(self, projected, state, requests):
        key_nHD = self.key_extractor.average(projected[0], state, requests)
        return key_nHD, key_nHD


class ParallelPersistentMemory(nn.Module):
    """`MosaicPersistentMemory` for packed requests and for some of the heads."""

    first_state = 3
    derive = MosaicPersistentMemory.derive

    def __init__(self, vllm_config, block_name: str, name: str):
        super().__init__()
        config = vllm_config.model_config.hf_config
        self.block_name, self.name, prefix = block_name, name, f"{block_name}.{name}"
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

    @classmethod
    def get_states(cls, vllm_config) -> list[State]:
        """The average."""
        hidden_size = vllm_config.model_config.hf_config.hidden_size
        return [State((hidden_size // vllm_config.parallel_config.tensor_parallel_size,), torch.float32)]

    def forward(self, hidden_nC: torch.Tensor) -> torch.Tensor:
        key_nC, _ = self.key_extractor.k_proj(hidden_nC)
        query_nC = torch.zeros_like(key_nC)
        torch.ops.vllm.mosaic_average_queries(key_nC, query_nC, self.block_name, self.name)
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
