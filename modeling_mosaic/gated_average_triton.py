"""The fading sum of the gated average (arXiv 2507.03285, equation 8) as a Triton kernel, for CUDA devices.

Shapes: B batch, H heads, T time, D head size; Q steps of time and L lanes of D in one tile.
"""

import contextlib

import torch

try:
    import triton
    import triton.language as tl
except ImportError as error:
    raise ImportError("gated_average_triton needs the package triton") from error

CHUNK_SIZE = 64


@triton.jit
def _compose(first_decay, first_sum, second_decay, second_sum):
    return first_decay * second_decay, first_sum * second_decay + second_sum


@triton.jit
def _fading_sum_kernel(
    x_ptr,
    decay_ptr,
    state_ptr,
    sum_ptr,
    heads,
    time,
    dim,
    x_stride_b,
    x_stride_h,
    x_stride_t,
    x_stride_d,
    BACKWARDS: tl.constexpr,
    CHUNK: tl.constexpr,
    LANES: tl.constexpr,
):
    """Decays and sums are contiguous. Backwards in time, step t gets what has faded at step t + 1."""
    # 64 bits from here on: offsets pass 2**31 in large tensors.
    sequence = tl.program_id(0).to(tl.int64)
    batch, head = sequence // heads, sequence % heads
    row_Q = tl.arange(0, CHUNK).to(tl.int64)
    lane_L = tl.program_id(1) * LANES + tl.arange(0, LANES).to(tl.int64)
    valid_L = lane_L < dim
    x_ptr_L = x_ptr + batch * x_stride_b + head * x_stride_h + lane_L * x_stride_d
    sum_ptr_L = sum_ptr + sequence * time * dim + lane_L
    decay_ptr += sequence * time
    carry_L = tl.zeros((LANES,), tl.float32)
    if state_ptr is not None:
        carry_L = tl.load(state_ptr + sequence * dim + lane_L, mask=valid_L, other=0.0)

    for done in tl.range(0, time, CHUNK, num_stages=3):
        # Rows run backwards, since scans with reverse=True are wrong on some releases of Triton
        # (triton-lang/triton#4362).
        t_Q = time - 1 - done - row_Q if BACKWARDS else done + row_Q
        inside_Q = (t_Q >= 0) & (t_Q < time)
        inside_QL = inside_Q[:, None] & valid_L[None, :]
        faded_Q = t_Q + 1 if BACKWARDS else t_Q
        decay_Q = tl.load(decay_ptr + faded_Q, mask=inside_Q & (faded_Q < time), other=1.0)
        x_QL = tl.load(x_ptr_L[None, :] + t_Q[:, None] * x_stride_t, mask=inside_QL, other=0.0)
        decay_QL = tl.broadcast_to(decay_Q[:, None], (CHUNK, LANES))
        carried_QL = tl.where(row_Q[:, None] == 0, decay_QL * carry_L[None, :], 0.0)
        _, sum_QL = tl.associative_scan((decay_QL, x_QL.to(tl.float32) + carried_QL), 0, _compose)
        carry_L = tl.sum(tl.where(row_Q[:, None] == CHUNK - 1, sum_QL, 0.0), 0)
        tl.store(sum_ptr_L[None, :] + t_Q[:, None] * dim, sum_QL, mask=inside_QL)


def _on_device_of(tensor):
    # Triton launches on the current device, which is another one in a model spread over several devices;
    # compiled code switches by itself.
    if tensor.is_cuda and not torch.compiler.is_compiling():
        return torch.cuda.device(tensor.device)
    return contextlib.nullcontext()


def fading_sum_triton(
    x_BHTD: torch.Tensor, fade_BHT: torch.Tensor, state_BHD: torch.Tensor | None, backwards: bool = False
) -> torch.Tensor:
    """`sum_t = x_t + exp(-fade_t) sum_{t-1}` in one pass over time, in float32.

    Args:
        x_BHTD (`torch.Tensor` of shape `(batch, heads, time, head_dim)`): what is added; at most 32 bits.
        fade_BHT (`torch.Tensor` of shape `(batch, heads, time)`): decay in nats.
        state_BHD (`torch.Tensor`, *optional*): the sum before the first step; 0 if `None`.
        backwards (`bool`): from the last step to the first, `sum_t = x_t + exp(-fade_{t+1}) sum_{t+1}`: the
            gradient of x from that of the sum. Takes no state.

    Costs O(T D) time.
    """
    batch, heads, time, dim = x_BHTD.shape
    sum_BHTD = x_BHTD.new_empty((batch, heads, time, dim), dtype=torch.float32)
    decay_BHT = torch.exp(-fade_BHT.float()).expand(batch, heads, time).contiguous()
    state_BHD = None if state_BHD is None else state_BHD.float().expand(batch, heads, dim).contiguous()
    lanes = 16 if dim <= 16 else 32
    with _on_device_of(x_BHTD):
        _fading_sum_kernel[(batch * heads, -(-dim // lanes))](
            x_BHTD,
            decay_BHT,
            state_BHD,
            sum_BHTD,
            heads,
            time,
            dim,
            *x_BHTD.stride(),
            BACKWARDS=backwards,
            CHUNK=CHUNK_SIZE,
            LANES=lanes,
            num_warps=4,
        )
    return sum_BHTD
