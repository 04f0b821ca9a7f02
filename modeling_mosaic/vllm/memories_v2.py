"""The memories of a Memory Mosaic v2 in vLLM. `../modeling_mosaic_v2.py` says what they are.

Slots of the short-term memory hold pairs as in the first model, and vLLM's attention sees the latest ones
alone, which vLLM's cache keeps. Slot t of the long-term memory holds pair t - m: the m keys and raw values of
pairs that wait for their slot are states, and causal attention is what the paper wants. Shapes are those of
`memories.py`; E numbers of a head go together, its average and more.
"""

import torch
from torch import nn
from torch.nn import functional as F
from vllm.model_executor.layers.linear import ColumnParallelLinear, RowParallelLinear

from ..memory_norms import as_dtype, in_full_precision
from ..modeling_mosaic_v2 import MosaicV2KeyNorm, MosaicV2PeekNorm
from .memories import ParallelMemory, shard_parameters


class ParallelV2Memory(ParallelMemory):
    """`MosaicV2Memory` for packed requests and for some of the heads."""

    # The log scale.
    numbers_per_average = 1
    longest_key = 1.0

    def __init__(self, vllm_config, block_name: str, name: str, window: int | None = None):
        super().__init__(vllm_config, block_name, name, window)
        config, prefix = vllm_config.model_config.hf_config, f"{block_name}.{name}"
        width, num_heads = config.hidden_size, config.num_attention_heads
        self.k_proj = ColumnParallelLinear(width, width, bias=False, prefix=f"{prefix}.k_proj")
        self.gain_proj = ColumnParallelLinear(width, num_heads, bias=False, prefix=f"{prefix}.gain_proj")
        self.leak_proj = ColumnParallelLinear(width, num_heads, bias=False, prefix=f"{prefix}.leak_proj")
        self.key_norm = shard_parameters(MosaicV2KeyNorm(self.num_heads))
        self.peek_norm = shard_parameters(MosaicV2PeekNorm(self.num_heads))

    def count_pairs(self, position_n: torch.Tensor) -> torch.Tensor:
        """How many pairs the token at each position of a text sees."""
        raise NotImplementedError

    def project(self, hidden_nC):
        return [proj(hidden_nC)[0] for proj in (self.k_proj, self.gain_proj, self.leak_proj, self.v_proj)]

    def extract_keys(self, projected, state, requests):
        key_nHD = projected[0].unflatten(-1, (self.num_heads, -1))
        log_pairs_n1 = self.count_pairs(requests.position_n).clamp(min=1).log()[:, None]
        log_gain_nH, leak_nH = projected[1], projected[2].abs()
        numbers_nHE = [x.expand(-1, self.num_heads)[..., None] for x in (log_gain_nH, leak_nH, log_pairs_n1)]
        new_nHE = torch.cat([in_full_precision(x) for x in (key_nHD, *numbers_nHE)], -1)
        # To the tokens, a state is a key with the log scale for its log gain.
        series, last, start = requests.as_series(
            requests.read(state).unflatten(-1, (self.num_heads, -1)), new_nHE
        )
        key, log_gain, leak, log_pairs = series.split([self.head_dim, 1, 1, 1], -1)
        query, key, (average, log_scale) = self.key_norm(
            key, log_gain[..., 0], leak[..., 0], log_pairs, last, dict(keep=None, start=start)
        )
        requests.write(state, requests.from_series(torch.cat([average, log_scale[..., None]], -1)))
        return tuple(as_dtype(requests.from_series(x), key_nHD.dtype) for x in (query, key))


class ParallelShortMemory(ParallelV2Memory):
    """`MosaicV2ShortMemory`: the latest h pairs."""

    def __init__(self, vllm_config, block_name: str, name: str):
        size = vllm_config.model_config.hf_config.short_memory_size
        super().__init__(vllm_config, block_name, name, window=size)
        self.size = size

    def count_pairs(self, position_n):
        return position_n.clamp(max=self.size)


class ParallelLongMemory(ParallelV2Memory):
    """`MosaicV2LongMemory`: all pairs but the latest m - 1."""

    first_state = 3

    @classmethod
    def get_delay(cls, config) -> int:
        return config.long_memory_delay

    def count_pairs(self, position_n):
        return position_n - (self.delay - 1)


class ParallelV2ContextualMemory(nn.Module):
    """`MosaicV2ContextualMemory`: both memories of a layer, side by side."""

    def __init__(self, vllm_config, block_name: str, name: str):
        super().__init__()
        self.short_memory = ParallelShortMemory(vllm_config, block_name, f"{name}.short_memory")
        self.long_memory = None
        if vllm_config.model_config.hf_config.use_long_memory:
            self.long_memory = ParallelLongMemory(vllm_config, block_name, f"{name}.long_memory")

    @classmethod
    def get_states(cls, vllm_config):
        states = ParallelShortMemory.get_states(vllm_config)
        if vllm_config.model_config.hf_config.use_long_memory:
            states += ParallelLongMemory.get_states(vllm_config)
        return states

    def forward(self, hidden_nC: torch.Tensor) -> torch.Tensor:
        recalled_nC = self.short_memory(hidden_nC)
        return recalled_nC if self.long_memory is None else recalled_nC + self.long_memory(hidden_nC)


class ParallelV2PersistentMemory(nn.Module):
    """`MosaicV2PersistentMemory` for some of its inner units."""

    def __init__(self, vllm_config, block_name: str, name: str):
        super().__init__()
        config, prefix = vllm_config.model_config.hf_config, f"{block_name}.{name}"
        sizes = (config.hidden_size, config.intermediate_size)
        self.gate_proj = ColumnParallelLinear(*sizes, bias=False, prefix=f"{prefix}.gate_proj")
        self.up_proj = ColumnParallelLinear(*sizes, bias=False, prefix=f"{prefix}.up_proj")
        self.down_proj = RowParallelLinear(*sizes[::-1], bias=False, prefix=f"{prefix}.down_proj")

    @classmethod
    def get_states(cls, vllm_config):
        """None."""
        return []

    def forward(self, hidden_nC: torch.Tensor) -> torch.Tensor:
        gate_nF, up_nF = (proj(hidden_nC)[0] for proj in (self.gate_proj, self.up_proj))
        return self.down_proj(F.silu(gate_nF) * up_nF)[0]
