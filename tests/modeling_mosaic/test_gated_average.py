"""The gated average by chunks against the recurrence, against the sum it stands for, and at its extremes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_mosaic.gated_average import gated_average, gated_average_reference


def draw_inputs(seed, time, has_state, has_padding, has_starts, spread=1.0, batch=2, heads=3, dim=4):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, dtype=torch.float64, generator=generator)  # noqa: E731
    inputs = [draw(batch, heads, time, dim), spread * draw(batch, heads, time)]
    inputs.append(spread * draw(batch, heads, time).abs())
    if has_state:
        inputs += [draw(batch, heads, dim), spread * draw(batch, heads)]
    inputs = [tensor.requires_grad_() for tensor in inputs]
    masks = {}
    if has_padding:
        masks["keep_BT"] = torch.rand(batch, time, generator=generator) < 0.7
    if has_starts:
        masks["start_BT"] = torch.rand(batch, time, generator=generator) < 0.05
    return inputs, masks


def direct_sum(key, log_gain, leak, average=None, log_scale=None, keep_BT=None, start_BT=None):
    """Norm(kbar) from all weights `exp(a_i - d_{i+1} - ... - d_t)` at once, over their largest."""
    time = key.shape[2]
    if average is not None:
        key, log_gain = (
            torch.cat([average[:, :, None], key], 2),
            torch.cat([log_scale[..., None], log_gain], 2),
        )
        leak = torch.nn.functional.pad(leak, (1, 0))
    else:
        key, log_gain, leak = (
            torch.cat([torch.zeros_like(x[:, :, :1]), x], 2) for x in (key, log_gain, leak)
        )
    keep = torch.ones(len(key), time + 1, dtype=torch.bool)
    keep[:, 0] = average is not None
    if keep_BT is not None:
        keep[:, 1:] = keep_BT
    sequence = torch.zeros(len(key), time + 1, dtype=torch.long)
    if start_BT is not None:
        sequence[:, 1:] = start_BT.cumsum(-1)
    faded = (leak * keep[:, None]).cumsum(-1)
    visible = torch.ones(time + 1, time + 1, dtype=torch.bool).tril() & keep[:, None]
    visible = (visible & (sequence[:, :, None] == sequence[:, None]))[:, None]
    weight = log_gain[..., None, :] + faded[..., None, :] - faded[..., :, None]
    weight = weight.masked_fill(~visible, -torch.inf)
    largest = weight.amax(-1, keepdim=True).detach().clamp(min=-1e30)
    return torch.nn.functional.normalize((weight - largest).exp() @ key, dim=-1)[:, :, 1:]


def norm_and_gradients(function, inputs, masks, seed):
    key, log_gain, leak, *state = inputs
    if function is direct_sum:
        unit = direct_sum(*inputs, **masks)
    else:
        average, _ = function(key, log_gain, leak, tuple(state) or None, **masks)
        unit = torch.nn.functional.normalize(average, dim=-1)
    weight = torch.randn(unit.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    # A state's log scale counts as a constant.
    return [unit, *torch.autograd.grad((unit * weight.to(unit)).sum(), inputs[:4], materialize_grads=True)]


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 999),
    time=st.one_of(st.integers(1, 70), st.sampled_from([16, 17, 64, 257])),
    has_state=st.booleans(),
    has_padding=st.booleans(),
    has_starts=st.booleans(),
    spread=st.sampled_from([1.0, 30.0]),
)
def test_chunks_equal_the_recurrence_and_the_sum(seed, time, has_state, has_padding, has_starts, spread):
    inputs, masks = draw_inputs(seed, time, has_state, has_padding, has_starts, spread)
    ours, step, sums = (
        norm_and_gradients(function, inputs, masks, seed)
        for function in (gated_average, gated_average_reference, direct_sum)
    )
    for chunked, stepwise, expected in zip(ours, step, sums, strict=True):
        torch.testing.assert_close(chunked, expected, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(stepwise, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_overflow(dtype):
    """Log gains of standard deviation 30, and some of 1000, in half precision too."""
    (key, log_gain, leak), _ = draw_inputs(0, 500, False, False, False, spread=30.0)
    log_gain = log_gain.detach().clone()
    log_gain[:, :, ::100] += 1000
    inputs = [tensor.detach().to(dtype).requires_grad_() for tensor in (key, log_gain, leak)]
    found = norm_and_gradients(gated_average, inputs, {}, 0)
    exact = norm_and_gradients(direct_sum, [x.detach().double().requires_grad_() for x in inputs], {}, 0)
    assert found[0].dtype == torch.float32
    for ours, expected in zip(found, exact, strict=True):
        assert ours.isfinite().all()
        # A rounding of a sum of leaks of some thousand nats changes a weight by a thousandth at most.
        tolerance = 1e-3 if ours.dtype == torch.float32 else 1e-2
        assert (ours.double() - expected).abs().max() <= tolerance * expected.abs().max()


def test_split_anywhere():
    """States carry on, with the same log scales."""
    (key, log_gain, leak), masks = draw_inputs(3, 70, False, True, False)
    average, log_scale = gated_average(key, log_gain, leak, **masks)
    for split in (1, 2, 16, 33, 69):
        state, parts = None, []
        for part in (slice(0, split), slice(split, None)):
            kept = {name: mask[:, part] for name, mask in masks.items()}
            parts.append(gated_average(key[:, :, part], log_gain[..., part], leak[..., part], state, **kept))
            state = tuple(tensor[:, :, -1] for tensor in parts[-1])
        for whole, ours in zip((average, log_scale), zip(*parts, strict=True), strict=True):
            torch.testing.assert_close(torch.cat(ours, 2), whole, rtol=1e-10, atol=1e-10)


def test_memory_is_linear_in_time():
    def saved(time):
        (key, log_gain, leak), _ = draw_inputs(0, time, False, False, False)
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()) or x, lambda x: x):
            gated_average(key, log_gain, leak)
        return sum(sizes)

    assert saved(4096) <= 4.1 * saved(1024)


def test_wrong_shapes_are_named():
    key = torch.zeros(1, 3, 5, 2)
    with pytest.raises(ValueError, match=r"leak_BHT must have shape \(1, 3, 5\) .*, not \(3,\)"):
        gated_average(key, torch.zeros(1, 3, 5), torch.zeros(3))
