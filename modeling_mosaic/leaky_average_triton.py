"""The leaky average of keys (arXiv 2405.06394, equation 7) as a Triton kernel, for CUDA devices.

Shapes: B batch, H heads, T time, D head size; Q steps of time and L lanes of D in one tile; N tiles along D.
"""

import contextlib

import torch
from torch.autograd.function import once_differentiable

try:
    import triton
    import triton.language as tl
except ImportError as error:
    raise ImportError("leaky_average_triton needs the package triton") from error

CHUNK_SIZE = 64


@triton.jit
def _compose(first_decay, first_sum, second_decay, second_sum):
    return first_decay * second_decay, first_sum * second_decay + second_sum


@triton.jit
def _kept(keep_ptr, step, inside):
    kept = inside
    if keep_ptr is not None:
        kept = tl.load(keep_ptr + step, mask=inside, other=0) != 0
    return kept


@triton.jit
def _fading(decay, keep_ptr, start_ptr, step, inside):
    """The factor of the past at each step (1 outside), and whether it depends on the leak."""
    fades = _kept(keep_ptr, step, inside)
    factor = tl.where(fades, decay, 1.0)
    if start_ptr is not None:
        starts = tl.load(start_ptr + step, mask=inside, other=0) != 0
        factor = tl.where(starts, 0.0, factor)
        fades = fades & (starts == 0)
    return factor, fades


@triton.jit
def _scan(factor_Q, value_QL, carry_L, row_Q, CHUNK: tl.constexpr, LANES: tl.constexpr):
    """All `sum_q = value_q + factor_q * sum_{q-1}`, where `carry_L` comes first; and the last one."""
    # A scan costs a few operations per element, below what the memory allows. A product with a triangular
    # matrix costs O(CHUNK), needs float32 without tensor cores to be exact, and a new matrix for each mask.
    factor_QL = tl.broadcast_to(factor_Q[:, None], (CHUNK, LANES))
    carried_QL = tl.where(row_Q[:, None] == 0, factor_QL * carry_L[None, :], 0.0)
    _, sum_QL = tl.associative_scan((factor_QL, value_QL + carried_QL), 0, _compose)
    return sum_QL, tl.sum(tl.where(row_Q[:, None] == CHUNK - 1, sum_QL, 0.0), 0)


@triton.jit
def _forward_kernel(
    key_ptr,
    decay_ptr,
    state_ptr,
    keep_ptr,
    start_ptr,
    average_ptr,
    heads,
    time,
    dim,
    key_stride_b,
    key_stride_h,
    key_stride_t,
    key_stride_d,
    average_stride_b,
    average_stride_h,
    average_stride_t,
    average_stride_d,
    CHUNK: tl.constexpr,
    LANES: tl.constexpr,
):
    # 64 bits from here on: offsets pass 2**31 in large tensors.
    sequence = tl.program_id(0).to(tl.int64)
    batch, head = sequence // heads, sequence % heads
    row_Q = tl.arange(0, CHUNK).to(tl.int64)
    lane_L = tl.program_id(1) * LANES + tl.arange(0, LANES).to(tl.int64)
    valid_L = lane_L < dim
    key_ptr_L = key_ptr + batch * key_stride_b + head * key_stride_h + lane_L * key_stride_d
    average_ptr_L = (
        average_ptr + batch * average_stride_b + head * average_stride_h + lane_L * average_stride_d
    )
    decay = tl.load(decay_ptr + head)
    carry_L = tl.zeros((LANES,), tl.float32)
    if state_ptr is not None:
        carry_L = tl.load(state_ptr + sequence * dim + lane_L, mask=valid_L, other=0.0)

    for done in tl.range(0, time, CHUNK, num_stages=3):
        t_Q = done + row_Q
        inside_Q = t_Q < time
        inside_QL = inside_Q[:, None] & valid_L[None, :]
        key_QL = tl.load(key_ptr_L[None, :] + t_Q[:, None] * key_stride_t, mask=inside_QL, other=0.0)
        step_Q = batch * time + t_Q
        kept_Q = _kept(keep_ptr, step_Q, inside_Q)
        factor_Q, _ = _fading(decay, keep_ptr, start_ptr, step_Q, inside_Q)
        value_QL = tl.where(kept_Q[:, None], key_QL.to(tl.float32), 0.0)
        average_QL, carry_L = _scan(factor_Q, value_QL, carry_L, row_Q, CHUNK, LANES)
        tl.store(average_ptr_L[None, :] + t_Q[:, None] * average_stride_t, average_QL, mask=inside_QL)


@triton.jit
def _backward_kernel(
    grad_ptr,
    average_ptr,
    decay_ptr,
    state_ptr,
    keep_ptr,
    start_ptr,
    grad_key_ptr,
    grad_state_ptr,
    grad_decay_ptr,
    heads,
    time,
    dim,
    grad_stride_b,
    grad_stride_h,
    grad_stride_t,
    grad_stride_d,
    average_stride_b,
    average_stride_h,
    average_stride_t,
    average_stride_d,
    CHUNK: tl.constexpr,
    LANES: tl.constexpr,
):
    """The gradient of key has the strides of average; that of decay is one partial sum per program."""
    sequence = tl.program_id(0).to(tl.int64)
    batch, head = sequence // heads, sequence % heads
    row_Q = tl.arange(0, CHUNK).to(tl.int64)
    lane_L = tl.program_id(1) * LANES + tl.arange(0, LANES).to(tl.int64)
    valid_L = lane_L < dim
    grad_ptr_L = grad_ptr + batch * grad_stride_b + head * grad_stride_h + lane_L * grad_stride_d
    average_L = batch * average_stride_b + head * average_stride_h + lane_L * average_stride_d
    decay = tl.load(decay_ptr + head)
    carry_L = tl.zeros((LANES,), tl.float32)
    grad_decay_QL = tl.zeros((CHUNK, LANES), tl.float32)

    for done in tl.range(0, time, CHUNK, num_stages=3):
        # Rows run backwards in time, since scans with reverse=True are wrong on some releases of Triton
        # (triton-lang/triton#4362).
        t_Q = time - 1 - done - row_Q
        inside_Q = t_Q >= 0
        inside_QL = inside_Q[:, None] & valid_L[None, :]
        grad_QL = tl.load(grad_ptr_L[None, :] + t_Q[:, None] * grad_stride_t, mask=inside_QL, other=0.0)
        average_QL = average_L[None, :] + t_Q[:, None] * average_stride_t
        after_first_QL = inside_QL & (t_Q[:, None] > 0)
        previous_QL = tl.load(average_ptr + average_QL - average_stride_t, mask=after_first_QL, other=0.0)
        step_Q = batch * time + t_Q
        kept_Q = _kept(keep_ptr, step_Q, inside_Q)
        _, fades_Q = _fading(decay, keep_ptr, start_ptr, step_Q, inside_Q)
        next_factor_Q, _ = _fading(decay, keep_ptr, start_ptr, step_Q + 1, inside_Q & (t_Q < time - 1))
        total_QL, carry_L = _scan(next_factor_Q, grad_QL, carry_L, row_Q, CHUNK, LANES)
        grad_decay_QL += tl.where(fades_Q[:, None], total_QL * previous_QL, 0.0)
        tl.store(grad_key_ptr + average_QL, tl.where(kept_Q[:, None], total_QL, 0.0), mask=inside_QL)

    grad_decay_L = tl.sum(grad_decay_QL, 0)
    if state_ptr is not None:
        state_L = sequence * dim + lane_L
        first_L = batch * time + tl.zeros((LANES,), tl.int64)
        factor_L, fades_L = _fading(decay, keep_ptr, start_ptr, first_L, valid_L)
        tl.store(grad_state_ptr + state_L, factor_L * carry_L, mask=valid_L)
        state = tl.load(state_ptr + state_L, mask=valid_L, other=0.0)
        grad_decay_L += tl.where(fades_L, carry_L * state, 0.0)
    tl.store(grad_decay_ptr + sequence * tl.num_programs(1) + tl.program_id(1), tl.sum(grad_decay_L, 0))


def _tiling(average_BHTD):
    """The grid and the size of a tile: narrow ones, as each program walks through all of time alone."""
    batch, heads, _, dim = average_BHTD.shape
    lanes = 16 if dim <= 16 else 32
    return (batch * heads, -(-dim // lanes)), dict(CHUNK=CHUNK_SIZE, LANES=lanes, num_warps=4)


def _on_device_of(tensor):
    # Triton launches on the current device, which is another one in a model spread over several devices;
    # compiled code switches by itself.
    if tensor.is_cuda and not torch.compiler.is_compiling():
        return torch.cuda.device(tensor.device)
    return contextlib.nullcontext()


class _LeakyAverage(torch.autograd.Function):
    @staticmethod
    def forward(ctx, key_BHTD, decay_H, state_BHD, keep_BT, start_BT):
        average_BHTD = torch.empty_like(key_BHTD, dtype=torch.float32)
        grid, tile = _tiling(average_BHTD)
        with _on_device_of(key_BHTD):
            _forward_kernel[grid](
                key_BHTD,
                decay_H,
                state_BHD,
                keep_BT,
                start_BT,
                average_BHTD,
                *key_BHTD.shape[1:],
                *key_BHTD.stride(),
                *average_BHTD.stride(),
                **tile,
            )
        ctx.save_for_backward(average_BHTD, decay_H, state_BHD, keep_BT, start_BT)
        ctx.key_dtype = key_BHTD.dtype
        return average_BHTD

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_BHTD):
        average_BHTD, decay_H, state_BHD, keep_BT, start_BT = ctx.saved_tensors
        grid, tile = _tiling(average_BHTD)
        grad_key_BHTD = torch.empty_like(average_BHTD, dtype=ctx.key_dtype)
        grad_state_BHD = None if state_BHD is None else torch.empty_like(state_BHD)
        # Partial sums, added up in a fixed order: atomics would make runs differ.
        grad_decay_BHN = torch.empty(
            *average_BHTD.shape[:2], grid[1], dtype=torch.float32, device=average_BHTD.device
        )
        with _on_device_of(average_BHTD):
            _backward_kernel[grid](
                grad_BHTD,
                average_BHTD,
                decay_H,
                state_BHD,
                keep_BT,
                start_BT,
                grad_key_BHTD,
                grad_state_BHD,
                grad_decay_BHN,
                *average_BHTD.shape[1:],
                *grad_BHTD.stride(),
                *average_BHTD.stride(),
                **tile,
            )
        return grad_key_BHTD, grad_decay_BHN.sum((0, 2)), grad_state_BHD, None, None


def leaky_average_triton(
    key_BHTD: torch.Tensor,
    leak_per_token_H: torch.Tensor,
    state_BHD: torch.Tensor | None = None,
    *,
    keep_BT: torch.Tensor | None = None,
    start_BT: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The leaky average in one pass over time, for keys of at most 32 bits. See `leaky_average`.

    kbar_t = key_t + exp(-leak) * kbar_{t-1}                        (arXiv 2405.06394, eq. 7)

    Arguments and returned values are those of `leaky_average`, which checks the shape of `leak_per_token_H`:
    this function does not. The averages lie in memory in the order of the keys. Gradients, too, are computed
    in float32 and are the same in each run; there are no second derivatives.

    Costs O(T D) time; keeps the averages for the backward pass. Equals `leaky_average_reference` within
    float32 rounding.
    """
    decay_H = torch.exp(-leak_per_token_H.float())
    # `expand` so that a wrong shape fails here and not by a read outside of memory.
    batch, heads, time, dim = key_BHTD.shape
    state_BHD = None if state_BHD is None else state_BHD.float().expand(batch, heads, dim).contiguous()
    keep_BT = None if keep_BT is None else keep_BT.expand(batch, time).contiguous()
    start_BT = None if start_BT is None else start_BT.expand(batch, time).contiguous()
    average_BHTD = _LeakyAverage.apply(key_BHTD, decay_H, state_BHD, keep_BT, start_BT)
    return average_BHTD, average_BHTD[:, :, -1]
