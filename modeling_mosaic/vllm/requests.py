"""Which tokens of a step belong to which request, and how states of its memories are read and written.

vLLM computes the new tokens of many requests in one step, packed one behind the other: n tokens of R
requests. Requests that decode, with a token each, come before those whose prompts, or parts of them, are
read. Both kinds of steps below read and write states in the same words.

A state lies in a block of vLLM's cache for each request: the average after its last token, flattened, or a
ring, `(blocks, K, C)`, of its last K vectors: that of the token at position p is entry `p % K`. Shapes: H
heads, E numbers of each in a state; S tokens with a state in front of each request's. An X stands for any
further axes.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch.nn import functional as F
from vllm.v1.attention.backend import AttentionBackend
from vllm.v1.attention.backends.mamba_attn import (
    BaseMambaAttentionMetadata,
    BaseMambaAttentionMetadataBuilder,
)

from ..leaky_average import ElapsedTimes, elapsed_times
from ..memory_norms import as_dtype, has_kernel


@dataclass
class DecodingRequests:
    """A step of one more token for each of some requests that have a past."""

    # `(R,)`: the block of vLLM's cache with the states of each, and the position of the token in its text.
    block_R: torch.Tensor
    position_n: torch.Tensor

    elapsed = None

    @property
    def num_tokens(self) -> int:
        return len(self.block_R)

    def read(self, state: torch.Tensor) -> torch.Tensor:
        """An average `(R, ...)` before this step."""
        return state[self.block_R]

    def write(self, state: torch.Tensor, new_nX: torch.Tensor) -> None:
        """Keeps of averages after each token that of the last one of each request."""
        state[self.block_R] = new_nX.flatten(1)

    def delay(self, new_nX: torch.Tensor, ring: torch.Tensor, steps: int) -> torch.Tensor:
        """Vectors of `steps` tokens before in each request, at most as many as the ring has."""
        if steps == 0:
            return new_nX
        kept_nC = ring[self.block_R, (self.position_n - steps) % ring.shape[1]]
        return as_dtype(kept_nC, new_nX.dtype).view_as(new_nX)

    def keep(self, new_nX: torch.Tensor, ring: torch.Tensor) -> None:
        """Writes the latest vectors of each request to the ring."""
        ring[self.block_R, self.position_n % ring.shape[1]] = as_dtype(new_nX.flatten(1), ring.dtype)

    def as_series(self, state_RHE: torch.Tensor, new_nHE: torch.Tensor):
        """As batches, `(R, H, 1, E)` each: the new tokens, and the states; and no starts."""
        return new_nHE[:, :, None], state_RHE[:, :, None], None

    def from_series(self, states_RH1E: torch.Tensor) -> torch.Tensor:
        """States `(n, H, E)` of the tokens."""
        return states_RH1E[:, :, 0]


@dataclass
class PackedRequests:
    """A step in which some request has several tokens, or its first one."""

    # `(R,)`: the first and the last token of each request, and whether anything of it came before this step.
    first_R: torch.Tensor
    last_R: torch.Tensor
    is_continued_R: torch.Tensor
    # `(R,)`: the block of vLLM's cache with the states of each, and the position of its last token.
    block_R: torch.Tensor
    last_position_R: torch.Tensor
    num_tokens: int

    def __post_init__(self):
        token_n = torch.arange(self.num_tokens, device=self.first_R.device)
        # `(n,)`: the request of each token, how many tokens of it this step has before, and its position.
        self.request_n = torch.searchsorted(self.last_R, token_n)
        self.offset_n = token_n - self.first_R[self.request_n]
        self.position_n = (self.last_position_R - self.last_R)[self.request_n] + token_n
        # Where states, and where tokens are, with a state in front of each request.
        self.front_R = self.first_R + torch.arange(len(self.first_R), device=token_n.device)
        self.behind_n = token_n + self.request_n + 1

    def read(self, state: torch.Tensor) -> torch.Tensor:
        """An average `(R, ...)` before this step: 0 for new requests, whose blocks hold what others left."""
        return state[self.block_R].masked_fill(~self.is_continued_R[:, None], 0)

    def write(self, state: torch.Tensor, new_nX: torch.Tensor) -> None:
        state[self.block_R] = new_nX[self.last_R].flatten(1)

    def delay(self, new_nX: torch.Tensor, ring: torch.Tensor, steps: int) -> torch.Tensor:
        """As of decoding requests; whatever the ring has for what came before the first token."""
        if steps == 0:
            return new_nX
        kept_nC = ring[self.block_R[self.request_n], (self.position_n - steps) % ring.shape[1]]
        is_kept_nX = (self.offset_n < steps).view(-1, *[1] * (new_nX.ndim - 1))
        return torch.where(is_kept_nX, as_dtype(kept_nC, new_nX.dtype).view_as(new_nX), new_nX.roll(steps, 0))

    def keep(self, new_nX: torch.Tensor, ring: torch.Tensor) -> None:
        # How many tokens before the last one each entry of the ring is of.
        entry_K = torch.arange(ring.shape[1], device=ring.device)
        token_RK = self.last_R[:, None] - (self.last_position_R[:, None] - entry_K) % len(entry_K)
        is_new_RK1 = (token_RK >= self.first_R[:, None])[..., None]
        new_RKC = as_dtype(new_nX.flatten(1), ring.dtype)[token_RK.clamp(min=0)]
        ring[self.block_R] = torch.where(is_new_RK1, new_RKC, ring[self.block_R])

    def as_series(self, state_RHE: torch.Tensor, new_nHE: torch.Tensor):
        """As one series `(1, H, S, E)`, with the state in front of each request; no state; and the starts.

        A state may have less numbers than tokens: the rest is 0.
        """
        series_SHE = new_nHE.new_empty(len(self.front_R) + len(new_nHE), *new_nHE.shape[1:])
        series_SHE[self.front_R] = F.pad(state_RHE, (0, new_nHE.shape[-1] - state_RHE.shape[-1]))
        series_SHE[self.behind_n] = new_nHE
        return series_SHE.transpose(0, 1)[None], None, self.start_1S

    def from_series(self, states_1HSE: torch.Tensor) -> torch.Tensor:
        return states_1HSE[0].transpose(0, 1)[self.behind_n]

    @cached_property
    def start_1S(self) -> torch.Tensor:
        """True for the state in front of each request, and for first tokens of all, which forget it."""
        num_states = len(self.front_R)
        start_S = self.front_R.new_zeros(num_states + self.num_tokens, dtype=torch.bool)
        start_S[self.front_R] = True
        start_S[self.front_R + 1] = ~self.is_continued_R
        return start_S[None]

    @cached_property
    def elapsed(self) -> ElapsedTimes | None:
        """For leaky averages of series without a kernel of their own."""
        inputs_1S1 = torch.empty(*self.start_1S.shape, 1, device=self.start_1S.device)
        return None if has_kernel(inputs_1S1) else elapsed_times(inputs_1S1, start_BT=self.start_1S)


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
    last_position_R = metadata.seq_lens.long() - 1
    if metadata.num_prefills == 0:
        # Of a recorded CUDA graph there are more than `num_decodes`: those that fill it have the null block.
        block_R = metadata.state_indices_tensor_d[:, 0].long()
        return DecodingRequests(block_R, last_position_R[: len(block_R)])
    num_decodes, bounds_P = metadata.num_decodes, metadata.query_start_loc_p.long()
    decode_R = torch.arange(num_decodes, device=bounds_P.device)
    block_R = metadata.state_indices_tensor_p.long()
    if num_decodes:
        block_R = torch.cat([metadata.state_indices_tensor_d[:num_decodes, 0].long(), block_R])
    return PackedRequests(
        first_R=torch.cat([decode_R, num_decodes + bounds_P[:-1]]),
        last_R=torch.cat([decode_R, num_decodes + bounds_P[1:] - 1]),
        is_continued_R=torch.cat(
            [torch.ones_like(decode_R, dtype=torch.bool), metadata.has_initial_states_p]
        ),
        block_R=block_R,
        last_position_R=last_position_R,
        num_tokens=num_decodes + metadata.num_prefill_tokens,
    )


def one_request(num_tokens: int, device: torch.device) -> PackedRequests:
    """All tokens as a prompt in block 0: the steps by which vLLM measures memory."""
    zero_1 = torch.zeros(1, dtype=torch.long, device=device)
    last_1 = zero_1 + num_tokens - 1
    return PackedRequests(zero_1, last_1, zero_1 > 0, zero_1, last_1, num_tokens)
