import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from modeling_mosaic.leaky_average import leaky_average, leaky_average_reference


def draw_inputs(seed, time, has_state, has_padding, has_starts, dtype=torch.float64, batch=2, heads=3, dim=4):
    torch.manual_seed(seed)
    key = torch.randn(batch, heads, time, dim, dtype=dtype, requires_grad=True)
    leak = (3 * torch.rand(heads, dtype=dtype)).requires_grad_()
    state = torch.randn(batch, heads, dim, dtype=dtype, requires_grad=True) if has_state else None
    masks = {}
    if has_padding:
        masks["keep_BT"] = torch.rand(batch, time) < 0.7
    if has_starts:
        masks["start_BT"] = torch.rand(batch, time) < 0.05
    return key, leak, state, masks


def values_and_gradients(function, key, leak, state, masks, seed):
    average, last = function(key, leak, state, **masks)
    torch.manual_seed(seed)
    inputs = [key, leak] + ([] if state is None else [state])
    objective = sum((out * torch.randn(out.shape, dtype=out.dtype)).sum() for out in (average, last))
    return [average, last, *torch.autograd.grad(objective, inputs)]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 999),
    time=st.one_of(st.integers(1, 200), st.sampled_from([64, 65, 128, 4096, 4097])),
    has_state=st.booleans(),
    has_padding=st.booleans(),
    has_starts=st.booleans(),
)
def test_chunks_equal_the_recurrence(seed, time, has_state, has_padding, has_starts):
    inputs = draw_inputs(seed, time, has_state, has_padding, has_starts)
    chunked = values_and_gradients(leaky_average, *inputs, seed)
    reference = values_and_gradients(leaky_average_reference, *inputs, seed)
    for ours, theirs in zip(chunked, reference, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("has_padding", [False, True])
@pytest.mark.parametrize("has_starts", [False, True])
def test_gradcheck(has_padding, has_starts, monkeypatch):
    monkeypatch.setattr("modeling_mosaic.leaky_average.CHUNK_SIZE", 4)
    monkeypatch.setattr("modeling_mosaic.leaky_average.GROUP_SIZE", 2)
    key, leak, state, masks = draw_inputs(1, 18, True, has_padding, has_starts, batch=1, heads=2, dim=2)
    assert torch.autograd.gradcheck(lambda *inputs: leaky_average(*inputs, **masks), (key, leak, state))


def test_the_formula():
    """Against the sum that the recurrence unrolls to, by hand."""
    key = torch.tensor([1.0, 10.0, 100.0]).view(1, 1, 3, 1)
    fade = math.exp(-0.5)
    average, last = leaky_average(key, torch.tensor([0.5]), torch.tensor([[[4.0]]]))
    expected = [1 + 4 * fade, 10 + fade + 4 * fade**2, 100 + 10 * fade + fade**2 + 4 * fade**3]
    torch.testing.assert_close(average.flatten(), torch.tensor(expected))
    torch.testing.assert_close(last.flatten(), torch.tensor(expected[-1:]))


@pytest.mark.parametrize("leak", [0.0, 1e-6, 50.0, 1e4])
def test_extreme_leaks_are_finite(leak):
    key = torch.randn(1, 1, 300, 2, requires_grad=True)
    leak = torch.tensor([leak], requires_grad=True)
    average, _ = leaky_average(key, leak)
    average.square().sum().backward()
    assert average.isfinite().all() and key.grad.isfinite().all() and leak.grad.isfinite().all()
    torch.testing.assert_close(average, leaky_average_reference(key, leak)[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keys_are_averaged_in_float32(dtype):
    torch.manual_seed(0)
    key = torch.randn(1, 2, 500, 8).to(dtype)
    leak = torch.tensor([0.001, 0.1])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        average, last = leaky_average(key, leak.to(dtype))
    expected, _ = leaky_average(key.double(), leak.to(dtype).double())
    assert average.dtype == last.dtype == torch.float32
    # A slow leak adds up the rounding of exp(-leak) over a thousand steps, in the recurrence too; that of
    # half precision would be a hundred times larger.
    torch.testing.assert_close(average.double(), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("leak", [0.0003, 0.03, 3.0])
def test_rounding(leak):
    """Float32's own, where the recurrence takes powers of a rounded decay: 3e-6 for the slowest leak."""
    torch.manual_seed(0)
    key, leak = torch.randn(2, 1, 1500, 32), torch.tensor([leak])
    expected, _ = leaky_average_reference(key.double(), leak.double())
    error = (leaky_average(key, leak)[0] - expected).norm(dim=-1) / expected.norm(dim=-1)
    assert error.max() < 8 * torch.finfo(torch.float32).eps


class LargestTensor(TorchDispatchMode):
    numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.numel = max(self.numel, tensor.numel())
        return result


@pytest.mark.parametrize("padded", [False, True])
def test_memory_is_linear_in_time(padded):
    def largest(time):
        key = torch.randn(1, 2, time, 4, requires_grad=True)
        leak = torch.tensor([0.1, 1.0], requires_grad=True)
        keep = torch.rand(1, time) < 0.5 if padded else None
        with LargestTensor() as mode:
            leaky_average(key, leak, keep_BT=keep)[0].sum().backward()
        return mode.numel

    assert largest(8192) <= 8.5 * largest(1024)


def test_wrong_leak_shape():
    with pytest.raises(ValueError, match="leak_per_token_H .* 3 heads.*\\(2,\\)"):
        leaky_average(torch.zeros(1, 3, 5, 2), torch.zeros(2))
