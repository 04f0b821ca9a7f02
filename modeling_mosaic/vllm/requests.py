"""Which tokens of a step belong to which request, and what the states of its memories are.

vLLM computes the new tokens of many requests in one step, packed one behind the other: n tokens of R
requests. Requests that decode, with a token each, come before those whose prompts, or parts of them, are
read.
"""

from dataclasses import dataclass, replace

import torch
from vllm.v1.attention.backend import AttentionBackend
from vllm.v1.attention.backends.mamba_attn import (
    BaseMambaAttentionMetadata,
    BaseMambaAttentionMetadataBuilder,
)

from ..leaky_average import ElapsedTimes, elapsed_times
from ..memory_norms import has_kernel


@dataclass
class PackedRequests:
    """A step in which some request has several tokens, or its first one."""

    num_tokens: int
    # `(R,)`: the first and the last token of each request, and whether anything of it came before this step.
    first_R: torch.Tensor
    last_R: torch.Tensor
    is_continued_R: torch.Tensor
    # `(R,)`: the block of vLLM's cache with the states of each; `None` where vLLM only measures memory.
    block_R: torch.Tensor | None
    # `(1, n)`: True for the first token of each request.
    start_1n: torch.Tensor
    # `(n, 1, 1)`: True for first tokens of all, whose pair is the dummy.
    is_dummy_n11: torch.Tensor
    # For leaky averages without a kernel of their own.
    elapsed: ElapsedTimes | None

    is_decode = False


@dataclass
class DecodingRequests:
    """A step of one more token for each of `num_tokens` requests."""

    num_tokens: int
    block_R: torch.Tensor

    is_decode = True


@dataclass
class MosaicMetadata(BaseMambaAttentionMetadata):
    """What vLLM knows about a step, in the form that memories need; the same for all layers."""

    requests: PackedRequests | DecodingRequests | None = None


class MosaicMetadataBuilder(BaseMambaAttentionMetadataBuilder[MosaicMetadata]):
    """Computes it once a step."""

    metadata_cls = MosaicMetadata
    # What is computed here holds the blocks.
    supports_update_block_table = False
    needs_causal_conv1d_metadata = False

    def build(self, *args, **kwargs) -> MosaicMetadata:
        metadata = super().build(*args, **kwargs)
        return replace(metadata, requests=find_requests(metadata))


class MosaicStatesBackend(AttentionBackend):
    """vLLM's name for the place where states of requests come from."""

    @staticmethod
    def get_name() -> str:
        return "MOSAIC_STATES"

    @staticmethod
    def get_builder_cls() -> type[MosaicMetadataBuilder]:
        return MosaicMetadataBuilder

    @classmethod
    def is_ssm(cls) -> bool:
        return True


def find_requests(metadata: BaseMambaAttentionMetadata) -> PackedRequests | DecodingRequests:
    """The requests of a step: decodes first, each with one token and a past, then prompts."""
    if metadata.num_prefills == 0:
        # Of a recorded CUDA graph there are more than `num_decodes`: those that fill it have the null block.
        block_R = metadata.state_indices_tensor_d[:, 0].long()
        return DecodingRequests(len(block_R), block_R)
    num_decodes, bounds_P = metadata.num_decodes, metadata.query_start_loc_p.long()
    decode_R = torch.arange(num_decodes, device=bounds_P.device)
    first_R = torch.cat([decode_R, num_decodes + bounds_P[:-1]])
    last_R = torch.cat([decode_R, num_decodes + bounds_P[1:] - 1])
    is_continued_R = torch.cat([torch.ones_like(decode_R, dtype=torch.bool), metadata.has_initial_states_p])
    block_R = metadata.state_indices_tensor_p.long()
    if num_decodes:
        block_R = torch.cat([metadata.state_indices_tensor_d[:num_decodes, 0].long(), block_R])
    num_tokens = num_decodes + metadata.num_prefill_tokens
    return pack(num_tokens, first_R, last_R, is_continued_R, block_R)


def pack(num_tokens, first_R, last_R, is_continued_R, block_R) -> PackedRequests:
    """Adds to these what follows from them."""
    start_n = first_R.new_zeros(num_tokens, dtype=torch.bool).index_fill(0, first_R, True)
    is_dummy_n = torch.zeros_like(start_n).index_copy(0, first_R, ~is_continued_R)
    inputs_1nC = torch.empty(1, num_tokens, 1, device=first_R.device)
    elapsed = None
    if num_tokens > 1 and not has_kernel(inputs_1nC):
        elapsed = elapsed_times(inputs_1nC, start_BT=start_n[None])
    return PackedRequests(
        num_tokens,
        first_R,
        last_R,
        is_continued_R,
        block_R,
        start_n[None],
        is_dummy_n[:, None, None],
        elapsed,
    )


def one_request(num_tokens: int, device: torch.device) -> PackedRequests:
    """All tokens as a prompt of which no state is kept: the steps by which vLLM measures memory."""
    first_R = torch.zeros(1, dtype=torch.long, device=device)
    is_continued_R = torch.zeros(1, dtype=torch.bool, device=device)
    return pack(num_tokens, first_R, first_R + num_tokens - 1, is_continued_R, None)
