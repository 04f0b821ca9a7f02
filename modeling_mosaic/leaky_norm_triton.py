"""From raw keys to keys (arXiv 2405.06394, equation 7) in one Triton kernel, for CUDA devices.

Leaky average, norm and scale: all that stands between a key extractor's linear layer and attention.

Shapes: B batch, H heads, T time, D head size; Q steps of time and L lanes, of which D count, in one tile.
"""

import contextlib

import torch
from torch.autograd.function import once_differentiable

try:
    import triton
    import triton.language as tl
except ImportError as error:
    raise ImportError("leaky_norm_triton needs the package triton") from error

# Steps in a tile: at most, of a few tokens, and times lanes, so that what is loaded ahead fits into memory.
CHUNK_SIZE = 64
SHORT_CHUNK_SIZE = 16
TILE_SIZE = 2048


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
def _norm(vector_QL):
    """Their lengths, and 1 for zero vectors, which stay zero."""
    norm_Q = tl.sqrt(tl.sum(vector_QL * vector_QL, 1))
    return tl.where(norm_Q == 0.0, 1.0, norm_Q)


@triton.jit
def _forward_kernel(
    raw_ptr,
    decay_ptr,
    scale_ptr,
    state_ptr,
    keep_ptr,
    start_ptr,
    key_ptr,
    average_ptr,
    heads,
    time,
    dim,
    raw_stride_b,
    raw_stride_h,
    raw_stride_t,
    raw_stride_d,
    average_stride_b,
    average_stride_h,
    average_stride_t,
    average_stride_d,
    CHUNK: tl.constexpr,
    LANES: tl.constexpr,
):
    """Keys have the strides of averages."""
    # 64 bits from here on: offsets pass 2**31 in large tensors.
    sequence = tl.program_id(0).to(tl.int64)
    batch, head = sequence // heads, sequence % heads
    row_Q = tl.arange(0, CHUNK).to(tl.int64)
    lane_L = tl.arange(0, LANES).to(tl.int64)
    valid_L = lane_L < dim
    raw_ptr_L = raw_ptr + batch * raw_stride_b + head * raw_stride_h + lane_L * raw_stride_d
    average_L = batch * average_stride_b + head * average_stride_h + lane_L * average_stride_d
    decay = tl.load(decay_ptr + head)
    scale = tl.load(scale_ptr + head)
    carry_L = tl.zeros((LANES,), tl.float32)
    if state_ptr is not None:
        carry_L = tl.load(state_ptr + sequence * dim + lane_L, mask=valid_L, other=0.0)

    for done in tl.range(0, time, CHUNK, num_stages=2):
        t_Q = done + row_Q
        inside_Q = t_Q < time
        inside_QL = inside_Q[:, None] & valid_L[None, :]
        raw_QL = tl.load(raw_ptr_L[None, :] + t_Q[:, None] * raw_stride_t, mask=inside_QL, other=0.0)
        step_Q = batch * time + t_Q
        kept_Q = _kept(keep_ptr, step_Q, inside_Q)
        factor_Q, _ = _fading(decay, keep_ptr, start_ptr, step_Q, inside_Q)
        raw_QL = tl.where(kept_Q[:, None], raw_QL.to(tl.float32), 0.0)
        average_QL, carry_L = _scan(factor_Q, raw_QL, carry_L, row_Q, CHUNK, LANES)
        offset_QL = average_L[None, :] + t_Q[:, None] * average_stride_t
        tl.store(average_ptr + offset_QL, average_QL, mask=inside_QL)
        tl.store(key_ptr + offset_QL, average_QL * (scale / _norm(average_QL))[:, None], mask=inside_QL)


@triton.jit
def _backward_kernel(
    grad_key_ptr,
    grad_average_ptr,
    average_ptr,
    decay_ptr,
    scale_ptr,
    state_ptr,
    keep_ptr,
    start_ptr,
    grad_raw_ptr,
    grad_state_ptr,
    grad_decay_ptr,
    grad_scale_ptr,
    heads,
    time,
    dim,
    grad_key_stride_b,
    grad_key_stride_h,
    grad_key_stride_t,
    grad_key_stride_d,
    average_stride_b,
    average_stride_h,
    average_stride_t,
    average_stride_d,
    CHUNK: tl.constexpr,
    LANES: tl.constexpr,
):
    """All but the gradient of keys has the strides of averages; those of decay and scale are a sum each per
    program, to be added up."""
    sequence = tl.program_id(0).to(tl.int64)
    batch, head = sequence // heads, sequence % heads
    row_Q = tl.arange(0, CHUNK).to(tl.int64)
    lane_L = tl.arange(0, LANES).to(tl.int64)
    valid_L = lane_L < dim
    grad_key_L = batch * grad_key_stride_b + head * grad_key_stride_h + lane_L * grad_key_stride_d
    average_L = batch * average_stride_b + head * average_stride_h + lane_L * average_stride_d
    decay = tl.load(decay_ptr + head)
    scale = tl.load(scale_ptr + head)
    carry_L = tl.zeros((LANES,), tl.float32)
    grad_decay_QL = tl.zeros((CHUNK, LANES), tl.float32)
    grad_scale_Q = tl.zeros((CHUNK,), tl.float32)

    for done in tl.range(0, time, CHUNK, num_stages=2):
        # Rows run backwards in time, since scans with reverse=True are wrong on some releases of Triton
        # (triton-lang/triton#4362).
        t_Q = time - 1 - done - row_Q
        inside_Q = t_Q >= 0
        inside_QL = inside_Q[:, None] & valid_L[None, :]
        grad_key_QL = grad_key_L[None, :] + t_Q[:, None] * grad_key_stride_t
        grad_key_QL = tl.load(grad_key_ptr + grad_key_QL, mask=inside_QL, other=0.0).to(tl.float32)
        offset_QL = average_L[None, :] + t_Q[:, None] * average_stride_t
        average_QL = tl.load(average_ptr + offset_QL, mask=inside_QL, other=0.0)
        after_first_QL = inside_QL & (t_Q[:, None] > 0)
        previous_QL = tl.load(average_ptr + offset_QL - average_stride_t, mask=after_first_QL, other=0.0)
        # What of it is orthogonal to the average passes on; what is along it is the scale's.
        norm_Q = _norm(average_QL)
        unit_QL = average_QL / norm_Q[:, None]
        along_Q = tl.sum(grad_key_QL * unit_QL, 1)
        grad_scale_Q += along_Q
        grad_QL = (grad_key_QL - unit_QL * along_Q[:, None]) * (scale / norm_Q)[:, None]
        if grad_average_ptr is not None:
            grad_QL += tl.load(grad_average_ptr + offset_QL, mask=inside_QL, other=0.0)
        step_Q = batch * time + t_Q
        kept_Q = _kept(keep_ptr, step_Q, inside_Q)
        _, fades_Q = _fading(decay, keep_ptr, start_ptr, step_Q, inside_Q)
        next_factor_Q, _ = _fading(decay, keep_ptr, start_ptr, step_Q + 1, inside_Q & (t_Q < time - 1))
        total_QL, carry_L = _scan(next_factor_Q, grad_QL, carry_L, row_Q, CHUNK, LANES)
        grad_decay_QL += tl.where(fades_Q[:, None], total_QL * previous_QL, 0.0)
        tl.store(grad_raw_ptr + offset_QL, tl.where(kept_Q[:, None], total_QL, 0.0), mask=inside_QL)

    grad_decay_L = tl.sum(grad_decay_QL, 0)
    if state_ptr is not None:
        state_L = sequence * dim + lane_L
        first_L = batch * time + tl.zeros((LANES,), tl.int64)
        factor_L, fades_L = _fading(decay, keep_ptr, start_ptr, first_L, valid_L)
        tl.store(grad_state_ptr + state_L, factor_L * carry_L, mask=valid_L)
        state = tl.load(state_ptr + state_L, mask=valid_L, other=0.0)
        grad_decay_L += tl.where(fades_L, carry_L * state, 0.0)
    tl.store(grad_decay_ptr + sequence, tl.sum(grad_decay_L, 0))
    tl.store(grad_scale_ptr + sequence, tl.sum(grad_scale_Q, 0))


def _tiling(average_BHTD):
    """The grid, a program for each head of a row, and the size of a tile."""
    batch, heads, time, dim = average_BHTD.shape
    lanes = max(16, triton.next_power_of_2(dim))
    chunk = SHORT_CHUNK_SIZE
    if time > chunk:
        chunk = max(chunk, min(CHUNK_SIZE, TILE_SIZE // lanes))
    return (batch * heads,), dict(CHUNK=chunk, LANES=lanes, num_warps=4)


def _on_device_of(tensor):
    # Triton launches on the current device, which is another one in a model spread over several devices;
    # compiled code switches by itself.
    if tensor.is_cuda and not torch.compiler.is_compiling():
        return torch.cuda.device(tensor.device)
    return contextlib.nullcontext()


class _LeakyNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, raw_BHTD, decay_H, scale_H, state_BH1D, keep_BT, start_BT):
        average_BHTD = torch.empty_like(raw_BHTD, dtype=torch.float32)
        key_BHTD = torch.empty_like(average_BHTD, dtype=raw_BHTD.dtype)
        grid, tile = _tiling(average_BHTD)
        with _on_device_of(raw_BHTD):
            _forward_kernel[grid](
                raw_BHTD,
                decay_H,
                scale_H,
                state_BH1D,
                keep_BT,
                start_BT,
                key_BHTD,
                average_BHTD,
                *raw_BHTD.shape[1:],
                *raw_BHTD.stride(),
                *average_BHTD.stride(),
                **tile,
            )
        ctx.save_for_backward(average_BHTD, decay_H, scale_H, state_BH1D, keep_BT, start_BT)
        ctx.dtype = raw_BHTD.dtype
        ctx.set_materialize_grads(False)
        return key_BHTD, average_BHTD

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_key_BHTD, grad_average_BHTD):
        average_BHTD, decay_H, scale_H, state_BH1D, keep_BT, start_BT = ctx.saved_tensors
        grid, tile = _tiling(average_BHTD)
        if grad_key_BHTD is None:
            grad_key_BHTD = torch.zeros_like(average_BHTD)
        if grad_average_BHTD is not None:
            grad_average_BHTD = torch.empty_like(average_BHTD).copy_(grad_average_BHTD)
        grad_raw_BHTD = torch.empty_like(average_BHTD, dtype=ctx.dtype)
        grad_state_BH1D = None if state_BH1D is None else torch.empty_like(state_BH1D)
        # Partial sums, added up in a fixed order: atomics would make runs differ.
        grad_decay_BH, grad_scale_BH = average_BHTD.new_empty((2, *average_BHTD.shape[:2]))
        with _on_device_of(average_BHTD):
            _backward_kernel[grid](
                grad_key_BHTD,
                grad_average_BHTD,
                average_BHTD,
                decay_H,
                scale_H,
                state_BH1D,
                keep_BT,
                start_BT,
                grad_raw_BHTD,
                grad_state_BH1D,
                grad_decay_BH,
                grad_scale_BH,
                *average_BHTD.shape[1:],
                *grad_key_BHTD.stride(),
                *average_BHTD.stride(),
                **tile,
            )
        return grad_raw_BHTD, grad_decay_BH.sum(0), grad_scale_BH.sum(0), grad_state_BH1D, None, None


def leaky_norm_triton(
    raw_BHTD: torch.Tensor,
    decay_H11: torch.Tensor,
    scale_H11: torch.Tensor,
    state_BH1D: torch.Tensor | None = None,
    *,
    keep_BT: torch.Tensor | None = None,
    start_BT: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys from raw keys of at most 32 bits, in one pass over time.

    kbar_t = raw_t + decay * kbar_{t-1}    key_t = scale Norm(kbar_t)             (arXiv 2405.06394, eq. 7)

    Masks and state are those of `leaky_average`. Both results lie in memory in the order of the raw keys.
    Gradients, too, are computed in float32 and are the same in each run; there are no second derivatives.

    Args:
        raw_BHTD (`torch.Tensor` of shape `(batch, heads, time, head_dim)`): raw keys.
        decay_H11, scale_H11 (`torch.Tensor` of shape `(heads, 1, 1)`): `exp(-leak)`, and the length of keys.
        state_BH1D (`torch.Tensor`, *optional*): the average after the token before.
        keep_BT, start_BT (`torch.BoolTensor`, *optional*): see `leaky_average`.

    Returns:
        `tuple[torch.Tensor, torch.Tensor]`: keys in the precision of the raw ones, and averages in float32.

    Costs O(T D) time; keeps the averages for the backward pass. Equals `leaky_average_reference` and then
    `scaled_unit`, within float32 rounding.
    """
    # `expand` so that a wrong shape fails here and not by a read outside of memory.
    batch, heads, time, dim = raw_BHTD.shape
    decay_H, scale_H = (x.float().expand(heads, 1, 1).flatten().contiguous() for x in (decay_H11, scale_H11))
    if state_BH1D is not None:
        state_BH1D = state_BH1D.float().expand(batch, heads, 1, dim).contiguous()
    keep_BT = None if keep_BT is None else keep_BT.expand(batch, time).contiguous()
    start_BT = None if start_BT is None else start_BT.expand(batch, time).contiguous()
    return _LeakyNorm.apply(raw_BHTD, decay_H, scale_H, state_BH1D, keep_BT, start_BT)
