"""A Memory Mosaic as a model of vLLM: the same computation as `../modeling_mosaic.py`, for packed requests.

To vLLM it is a hybrid model: pairs lie in the pages of its attention layers, and the states that
`memory_state.py` names in the pages that others have for recurrent layers. Requests share both for a common
prefix. What depends on the requests of a step happens in two custom operations a layer, which
`torch.compile` does not look into.
"""

from collections.abc import Iterable

import torch
from torch import nn
from vllm.compilation.breakable_cudagraph import eager_break_during_capture
from vllm.compilation.decorators import support_torch_compile
from vllm.config import VllmConfig
from vllm.forward_context import get_forward_context
from vllm.model_executor.layers.logits_processor import LogitsProcessor
from vllm.model_executor.layers.mamba.abstract import MambaBase
from vllm.model_executor.layers.mamba.mamba_utils import get_temporal_copy_spec
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding
from vllm.model_executor.models.interfaces import HasInnerState, IsHybrid
from vllm.model_executor.models.utils import AutoWeightsLoader, maybe_prefix
from vllm.utils.torch_utils import direct_register_custom_op
from vllm.v1.attention.backends.registry import MambaAttentionBackendEnum

from ..memory_state import CONTEXTUAL_AVERAGE, LAST_KEY, LAST_VALUE, PERSISTENT_AVERAGE
from .memories import ParallelContextualMemory, ParallelPersistentMemory
from .requests import MosaicStatesBackend, one_request

NUM_STATES = 4


def state_dtypes(vllm_config: VllmConfig) -> tuple[torch.dtype, ...]:
    """Averages are kept in full precision, keys and values in the model's."""
    dtypes = [vllm_config.model_config.dtype] * NUM_STATES
    dtypes[CONTEXTUAL_AVERAGE] = dtypes[PERSISTENT_AVERAGE] = torch.float32
    return tuple(dtypes)


def state_shapes(vllm_config: VllmConfig) -> tuple[tuple[int], ...]:
    """Each state has all heads of a process side by side."""
    hidden_size = vllm_config.model_config.hf_config.hidden_size
    return ((hidden_size // vllm_config.parallel_config.tensor_parallel_size,),) * NUM_STATES


class MosaicBlock(nn.Module, MambaBase):
    """`x += contextual(LN(x)); x += persistent(LN(x))`; holds the states of its memories for all requests."""

    def __init__(self, vllm_config: VllmConfig, prefix: str):
        super().__init__()
        config = vllm_config.model_config.hf_config
        self.prefix = prefix
        self.vllm_config = vllm_config
        self.contextual_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps, bias=config.use_bias)
        self.contextual_memory = ParallelContextualMemory(vllm_config, f"{prefix}.contextual_memory")
        self.persistent_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps, bias=config.use_bias)
        self.persistent_memory = ParallelPersistentMemory(config, f"{prefix}.persistent_memory")
        # Where vLLM finds what has a cache, and the operations below find a block.
        vllm_config.compilation_config.static_forward_context[prefix] = self
        self.kv_cache = (torch.tensor([]),)

    def forward(self, hidden_nC: torch.Tensor) -> torch.Tensor:
        hidden_nC = hidden_nC + self.contextual_memory(self.contextual_norm(hidden_nC), self.prefix)
        return hidden_nC + self.persistent_memory(self.persistent_norm(hidden_nC), self.prefix)

    def get_state_shape(self) -> tuple[tuple[int], ...]:
        return state_shapes(self.vllm_config)

    def get_state_dtype(self) -> tuple[torch.dtype, ...]:
        return state_dtypes(self.vllm_config)

    @property
    def mamba_type(self) -> MambaAttentionBackendEnum:
        """The kind of recurrent layer that vLLM takes this for."""
        return MambaAttentionBackendEnum.SHORT_CONV

    def get_attn_backend(self) -> type[MosaicStatesBackend]:
        return MosaicStatesBackend

    def find_requests(self, num_tokens: int, device: torch.device):
        metadata = get_forward_context().attn_metadata
        return one_request(num_tokens, device) if metadata is None else metadata[self.prefix].requests

    def read_states(self, requests, *numbers: int) -> list[torch.Tensor]:
        """States `(R, C)` before this step: 0 for new requests, whose blocks hold what others have left."""
        if requests.block_R is None:
            shapes, dtypes = self.get_state_shape(), self.get_state_dtype()
            return [
                torch.zeros(1, *shapes[i], dtype=dtypes[i], device=requests.first_R.device) for i in numbers
            ]
        states = [self.kv_cache[i][requests.block_R] for i in numbers]
        if requests.is_decode:
            return states
        return [state_RC.masked_fill(~requests.is_continued_R[:, None], 0) for state_RC in states]

    def write_states(self, requests, states: dict[int, torch.Tensor]) -> None:
        """Keeps of states `(n, H, D)` those after the last token of each request."""
        if requests.block_R is None:
            return
        for number, state_nHD in states.items():
            last_RHD = state_nHD if requests.is_decode else state_nHD[requests.last_R]
            kept = self.kv_cache[number]
            kept[requests.block_R] = last_RHD.flatten(1).to(kept.dtype)


@eager_break_during_capture
def mosaic_store_pairs(
    key_nC: torch.Tensor,
    value_nC: torch.Tensor,
    query_nP: torch.Tensor,
    key_nP: torch.Tensor,
    value_nP: torch.Tensor,
    layer_name: str,
) -> None:
    """Fills queries, keys and values for attention, given the projections of the tokens."""
    block = get_forward_context().no_compile_layers[layer_name]
    requests = block.find_requests(len(key_nC), key_nC.device)
    numbers = (CONTEXTUAL_AVERAGE, LAST_KEY, LAST_VALUE)
    states = block.contextual_memory.store(
        key_nC[: requests.num_tokens],
        value_nC[: requests.num_tokens],
        block.read_states(requests, *numbers),
        requests,
        (query_nP, key_nP, value_nP),
    )
    block.write_states(requests, dict(zip(numbers, states, strict=True)))


@eager_break_during_capture
def mosaic_average_queries(key_nC: torch.Tensor, query_nC: torch.Tensor, layer_name: str) -> None:
    """Fills the queries of persistent memories, given the projections of the tokens."""
    block = get_forward_context().no_compile_layers[layer_name]
    requests = block.find_requests(len(key_nC), key_nC.device)
    key_nC = key_nC[: requests.num_tokens]
    (state_RC,) = block.read_states(requests, PERSISTENT_AVERAGE)
    query_nHD, average_nHD = block.persistent_memory.key_extractor.average(key_nC, state_RC, requests)
    query_nC[: requests.num_tokens] = query_nHD.flatten(1)
    block.write_states(requests, {PERSISTENT_AVERAGE: average_nHD})


direct_register_custom_op(
    op_name="mosaic_store_pairs", op_func=mosaic_store_pairs, mutates_args=["query_nP", "key_nP", "value_nP"]
)
direct_register_custom_op(
    op_name="mosaic_average_queries", op_func=mosaic_average_queries, mutates_args=["query_nC"]
)


@support_torch_compile
class MosaicModel(nn.Module):
    """Embedding, blocks and a last layer norm."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = ""):
        super().__init__()
        config = vllm_config.model_config.hf_config
        self.embed_tokens = VocabParallelEmbedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            [MosaicBlock(vllm_config, f"{prefix}.layers.{i}") for i in range(config.num_hidden_layers)]
        )
        self.norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps, bias=config.use_bias)

    def embed_input_ids(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.embed_tokens(input_ids)

    def forward(
        self,
        input_ids: torch.Tensor | None,
        positions: torch.Tensor,
        inputs_embeds: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Positions do not count; vLLM passes them to every model."""
        hidden_nC = self.embed_input_ids(input_ids) if inputs_embeds is None else inputs_embeds
        for layer in self.layers:
            hidden_nC = layer(hidden_nC)
        return self.norm(hidden_nC)


class MosaicForCausalLM(nn.Module, HasInnerState, IsHybrid):
    """A Memory Mosaic that predicts the next token."""

    @classmethod
    def get_mamba_state_dtype_from_config(cls, vllm_config: VllmConfig) -> tuple[torch.dtype, ...]:
        return state_dtypes(vllm_config)

    @classmethod
    def get_mamba_state_shape_from_config(cls, vllm_config: VllmConfig) -> tuple[tuple[int], ...]:
        return state_shapes(vllm_config)

    @classmethod
    def get_mamba_state_copy_func(cls) -> tuple:
        return (get_temporal_copy_spec,) * NUM_STATES

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = ""):
        super().__init__()
        self.config = vllm_config.model_config.hf_config
        self.model = MosaicModel(vllm_config=vllm_config, prefix=maybe_prefix(prefix, "model"))
        sizes = (self.config.vocab_size, self.config.hidden_size)
        self.lm_head = ParallelLMHead(*sizes, prefix=maybe_prefix(prefix, "lm_head"))
        if self.config.tie_word_embeddings:
            self.lm_head = self.lm_head.tie_weights(self.model.embed_tokens)
        self.logits_processor = LogitsProcessor(self.config.vocab_size)

    def embed_input_ids(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.model.embed_input_ids(input_ids)

    def forward(
        self,
        input_ids: torch.Tensor | None,
        positions: torch.Tensor,
        intermediate_tensors=None,
        inputs_embeds: torch.Tensor | None = None,
        **kwargs,
    ) -> torch.Tensor:
        return self.model(input_ids, positions, inputs_embeds)

    def compute_logits(self, hidden_nC: torch.Tensor) -> torch.Tensor:
        return self.logits_processor(self.lm_head, hidden_nC * self.config.logit_scale)

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        return AutoWeightsLoader(self).load_weights(weights)
