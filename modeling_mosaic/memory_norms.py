"""The two normalisations of equation 7 (arXiv 2405.06394), with the learned scalars of a layer's memories.

Shapes: B batch, T time, H heads, D head size; H11 stands for `(heads, 1, 1)`.
"""

from collections.abc import Callable

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from transformers.utils.import_utils import is_tracing

from .leaky_average import leaky_average, leaky_step

try:
    from .leaky_norm_triton import leaky_norm_triton
except ImportError:
    leaky_norm_triton = None

# The scalars r and s of a memory are stored divided by this, as in the original: Adam then moves them ten
# times as fast.
SCALAR_GAIN = 10.0


def in_full_precision(states: torch.Tensor) -> torch.Tensor:
    """The same in float32, or in float64 if it is that."""
    return states if states.dtype in (torch.float32, torch.float64) else states.float()


def as_dtype(states: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """`states.to(dtype)`, which would be an operation even where there is nothing to convert."""
    return states if states.dtype == dtype else states.to(dtype)


def has_kernel(tensor: torch.Tensor) -> bool:
    """Whether Triton's kernel makes keys of this device and precision."""
    return leaky_norm_triton is not None and tensor.is_cuda and tensor.dtype != torch.float64


def scaled_unit(vector_BHTD: torch.Tensor, scale_H11: torch.Tensor) -> torch.Tensor:
    """`alpha Norm(x)` of equation 7; a zero vector stays zero, and has a finite gradient."""
    return _ScaledUnit.apply(vector_BHTD, scale_H11)[0]


class _ScaledUnit(torch.autograd.Function):
    """The gradient in a third of the operations that automatic differentiation takes.

    That of x is `alpha / |x|` times what of it is orthogonal to x; the rest, along x, is that of alpha.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(vector_BHTD, scale_H11):
        norm_BHT1 = torch.linalg.vector_norm(vector_BHTD, dim=-1, keepdim=True)
        norm_BHT1 = torch.threshold(norm_BHT1, 0.0, 1.0)
        return vector_BHTD * (scale_H11 / norm_BHT1), norm_BHT1

    @staticmethod
    def setup_context(ctx, inputs, outputs):
        ctx.save_for_backward(*outputs, inputs[1])
        ctx.mark_non_differentiable(outputs[1])
        ctx.set_materialize_grads(False)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_BHTD, _):
        unit_BHTD, norm_BHT1, scale_H11 = ctx.saved_tensors
        along_BHT1 = (grad_BHTD * unit_BHTD).sum(-1, keepdim=True) / scale_H11
        grad_BHTD = grad_BHTD * (scale_H11 / norm_BHT1)
        grad_BHTD = torch.addcmul(grad_BHTD, unit_BHTD, along_BHT1 / norm_BHT1, value=-1)
        return grad_BHTD, along_BHT1.sum((0, 2)).view(-1, 1, 1)


class DerivedScalars:
    """What follows from a few parameters alone, kept while they do not change and no gradient is wanted.

    Decoding a token would otherwise spend a third of its operations on a few numbers per head. A change is
    noticed by the parameters' identity, version and address, as autograd notices it: in training, by
    `load_state_dict`, `from_pretrained`, offloading. Unnoticed, as by autograd, are only in-place writes to
    `parameter.data`. Distributed processes, where sharding writes past autograd, keep nothing.
    """

    def __init__(self):
        self.state = self.parameters = self.values = None

    def get(self, derive: Callable, *parameters: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The tuple `derive(*parameters)`, given them in full precision."""
        is_constant = not (torch.is_grad_enabled() or is_tracing() or torch.distributed.is_initialized())
        if not is_constant or any(type(p) is not nn.Parameter or p.is_inference() for p in parameters):
            self.state = self.parameters = self.values = None
            return derive(*map(in_full_precision, parameters))
        state = [(p._version, p.data_ptr()) for p in parameters]
        is_same = self.parameters is not None and all(
            old is new for old, new in zip(self.parameters, parameters, strict=True)
        )
        if not is_same or self.state != state:
            self.state, self.parameters = state, parameters
            self.values = derive(*map(in_full_precision, parameters))
        return self.values

    def __getstate__(self) -> dict:
        """Copies of a model start anew."""
        return dict.fromkeys(self.__dict__)


class MosaicLeakyNorm(nn.Module):
    """Leaky average of keys, normalised: `k_T = alpha Norm(k~_T + lambda kbar_{T-1})` (equation 7).

    `lambda = exp(-|r|)` and `alpha = exp(min(s, max_log_scale)) ** power`, one r and one s per head. In a
    contextual product both sides carry alpha; persistent keys are raw, so that the query carries it twice.

    It is called a norm also because the Trainer spares what is called so from weight decay, as the original
    spares these scalars; hence `peek_norm` and `log_value_norm`, too.
    """

    def __init__(self, num_heads: int, max_log_scale: float, power: int):
        super().__init__()
        self.max_log_scale = max_log_scale
        self.power = power
        self.leak = nn.Parameter(torch.empty(num_heads))
        self.log_scale = nn.Parameter(torch.empty(num_heads))
        self.derived = DerivedScalars()

    def derive(self, leak_H, log_scale_H):
        """The leak in nats per token, the decay lambda, and the scale alpha."""
        leak_H = SCALAR_GAIN * leak_H.abs()
        log_scale_H = (self.power * SCALAR_GAIN * log_scale_H).clamp(max=self.power * self.max_log_scale)
        return leak_H, torch.exp(-leak_H).view(-1, 1, 1), torch.exp(log_scale_H).view(-1, 1, 1)

    def forward(self, key_BHTD, state_BH1D=None, keep_BT=None, start_BT=None, elapsed=None):
        """Keys in the precision of `key_BHTD`, and the averages behind them in full precision."""
        # Here alone, since accelerate takes offloaded parameters away between calls of modules.
        leak_H, decay_H11, scale_H11 = self.derived.get(self.derive, self.leak, self.log_scale)
        if has_kernel(key_BHTD):
            masks = dict(keep_BT=keep_BT, start_BT=start_BT)
            return leaky_norm_triton(key_BHTD, decay_H11, scale_H11, state_BH1D, **masks)
        if key_BHTD.shape[2] == 1:
            average_BHTD = leaky_step(in_full_precision(key_BHTD), decay_H11, state_BH1D, keep_BT, start_BT)
        else:
            state_BHD = None if state_BH1D is None else state_BH1D[:, :, 0]
            average_BHTD, _ = leaky_average(
                key_BHTD, leak_H, state_BHD, keep_BT=keep_BT, start_BT=start_BT, elapsed=elapsed
            )
        return as_dtype(scaled_unit(average_BHTD, scale_H11), key_BHTD.dtype), average_BHTD


class MosaicPeekNorm(nn.Module):
    """Values that peek one step ahead, normalised: `v_T = alpha Norm(c v~_T + (1 - c) v~_{T+1})` (eq. 7).

    Norm makes this the paper's `v~_T + lambda v~_{T+1}` with `lambda = (1 - c) / c`. One c and one s per
    head, `alpha = exp(s)`.
    """

    def __init__(self, num_heads: int):
        super().__init__()
        self.mix = nn.Parameter(torch.empty(num_heads))
        self.log_scale = nn.Parameter(torch.empty(num_heads))
        self.derived = DerivedScalars()

    def derive(self, mix_H, log_scale_H):
        """The mix c and the scale alpha."""
        return mix_H.view(-1, 1, 1), torch.exp(SCALAR_GAIN * log_scale_H).view(-1, 1, 1)

    def forward(self, value_BHTD: torch.Tensor, next_BHTD: torch.Tensor) -> torch.Tensor:
        """Values v, from raw values v~ and those one token later; in the precision of `next_BHTD`."""
        mix_H11, scale_H11 = self.derived.get(self.derive, self.mix, self.log_scale)
        mixed_BHTD = torch.lerp(in_full_precision(next_BHTD), in_full_precision(value_BHTD), mix_H11)
        return as_dtype(scaled_unit(mixed_BHTD, scale_H11), next_BHTD.dtype)
