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

from .memories import ParallelContextualMemory, ParallelPersistentMemory, State
from .requests import MosaicStatesBackend, one_request


class MosaicBlock(nn.Module, MambaBase):
    """`x += contextual(norm(x)); x += persistent(norm(x))`; holds the states of memories of all requests.

    A subclass names its own parts.
    """

    contextual_class = ParallelContextualMemory
    persistent_class = ParallelPersistentMemory

    def __init__(self, vllm_config: VllmConfig, prefix: str):
        super().__init__()
        self.prefix = prefix
        self.states = self.get_states(vllm_config)
        config = vllm_config.model_config.hf_config
        self.contextual_norm = self.make_norm(config)
        self.contextual_memory = self.contextual_class(vllm_config, prefix, "contextual_memory")
        self.persistent_norm = self.make_norm(config)
        self.persistent_memory = self.persistent_class(vllm_config, prefix, "persistent_memory")
        # Where vLLM finds what has a cache, and the operations below find a block.
        vllm_config.compilation_config.static_forward_context[prefix] = self
        self.kv_cache = (torch.tensor([]),)

    @staticmethod
    def make_norm(config) -> nn.Module:
        return nn.LayerNorm(config.hidden_size, config.layer_norm_eps, bias=config.use_bias)

    @classmethod
    def get_states(cls, vllm_config: VllmConfig) -> list[State]:
        """What is kept of each request: the states of all memories, one behind the other."""
        parts = (cls.contextual_class, cls.persistent_class)
        return [state for part in parts for state in part.get_states(vllm_config)]

    def forward(self, hidden_nC: torch.Tensor) -> torch.Tensor:
        hidden_nC = hidden_nC + self.contextual_memory(self.contextual_norm(hidden_nC))
        return hidden_nC + self.persistent_memory(self.persistent_norm(hidden_nC))

    def get_state_shape(self) -> tuple[tuple[int, ...], ...]:
        return tuple(state.shape for state in self.states)

    def get_state_dtype(self) -> tuple[torch.dtype, ...]:
        return tuple(state.dtype for state in self.states)

    @property
    def mamba_type(self) -> MambaAttentionBackendEnum:
        """The kind of recurrent layer that vLLM takes this for."""
        return MambaAttentionBackendEnum.SHORT_CONV

    def get_attn_backend(self) -> type[MosaicStatesBackend]:
        return MosaicStatesBackend

    def find_step(self, tokens_nC: torch.Tensor):
        """The requests of a step, and the states of all; those of none where vLLM only measures memory."""
        metadata = get_forward_context().attn_metadata
        if metadata is not None:
            return metadata[self.prefix].requests, self.kv_cache
        states = [tokens_nC.new_zeros(1, *state.shape, dtype=state.dtype) for state in self.states]
        return one_request(len(tokens_nC), tokens_nC.device), states


@eager_break_during_capture
def mosaic_store_pairs(
    projected: list[torch.Tensor],
    query_nP: torch.Tensor,
    key_nP: torch.Tensor,
    value_nP: torch.Tensor,
    block_name: str,
    name: str,
) -> None:
    """Fills queries, keys and values for attention, given the projections of the tokens."""
    block = get_forward_context().no_compile_layers[block_name]
    memory = block.get_submodule(name)
    requests, states = block.find_step(projected[0])
    memory.store(
        [states_nX[: requests.num_tokens] for states_nX in projected],
        states[memory.first_state : memory.first_state + 3],
        requests,
        (query_nP, key_nP, value_nP),
    )


@eager_break_during_capture
def mosaic_average_queries(key_nC: torch.Tensor, query_nC: torch.Tensor, block_name: str, name: str) -> None:
    """Fills the queries of persistent memories, given the projections of the tokens."""
    block = get_forward_context().no_compile_layers[block_name]
    memory = block.get_submodule(name)
    requests, states = block.find_step(key_nC)
    query_nHD = memory.key_extractor.average(
        key_nC[: requests.num_tokens], states[memory.first_state], requests
    )
    query_nC[: requests.num_tokens] = query_nHD.flatten(1)


direct_register_custom_op(
    op_name="mosaic_store_pairs", op_func=mosaic_store_pairs, mutates_args=["query_nP", "key_nP", "value_nP"]
)
direct_register_custom_op(
    op_name="mosaic_average_queries", op_func=mosaic_average_queries, mutates_args=["query_nC"]
)


@support_torch_compile
class MosaicModel(nn.Module):
    """Embedding, blocks and a last norm."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "", block_class: type[MosaicBlock]):
        super().__init__()
        config = vllm_config.model_config.hf_config
        self.embed_tokens = VocabParallelEmbedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            [block_class(vllm_config, f"{prefix}.layers.{i}") for i in range(config.num_hidden_layers)]
        )
        self.norm = block_class.make_norm(config)

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

    block_class = MosaicBlock

    @classmethod
    def get_mamba_state_dtype_from_config(cls, vllm_config: VllmConfig) -> tuple[torch.dtype, ...]:
        return tuple(state.dtype for state in cls.block_class.get_states(vllm_config))

    @classmethod
    def get_mamba_state_shape_from_config(cls, vllm_config: VllmConfig) -> tuple[tuple[int, ...], ...]:
        return tuple(state.shape for state in cls.block_class.get_states(vllm_config))

    def get_mamba_state_copy_funcs(self, mamba_types: set[MambaAttentionBackendEnum]) -> dict:
        """How vLLM copies each state from block to block. A class cannot know how many there are."""
        return dict.fromkeys(mamba_types, (get_temporal_copy_spec,) * self.num_states)

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = ""):
        super().__init__()
        self.config = vllm_config.model_config.hf_config
        self.num_states = len(self.block_class.get_states(vllm_config))
        self.model = MosaicModel(
            vllm_config=vllm_config, prefix=maybe_prefix(prefix, "model"), block_class=self.block_class
        )
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
