"""How much of a block's time its leaky averages take."""

from collections.abc import Callable
from functools import partial
from unittest import mock

import torch

from modeling_mosaic import MosaicForCausalLM, modeling_mosaic
from modeling_mosaic.leaky_average import leaky_average
from mosaic_lab.benchmark.measure import autocast, seconds_per_call, take_turns
from mosaic_lab.benchmark.options import BenchmarkArguments


def time_leaky_share(
    model: MosaicForCausalLM, tokens: torch.Tensor, execution: str, options: BenchmarkArguments
) -> dict[str, list[float]]:
    """Seconds of forward and backward of a block's leaky averages (`leaky_average`) and of the `block`.

    Both get what the model gives them in training: tensors of the same strides and precision.
    """
    block = model.model.layers[0]
    block_input, average_inputs = record_inputs(model, tokens, options)
    averages = [_training_pass(leaky_average, inputs, [], execution, options) for inputs in average_inputs]
    runs = {
        "leaky_average": lambda: [run() for run in averages],
        "block": _training_pass(block, block_input, list(block.parameters()), execution, options),
    }
    clocks = {
        name: partial(seconds_per_call, run, options.device, options.min_seconds)
        for name, run in runs.items()
    }
    return take_turns(clocks, options.repeats)


def record_inputs(
    model: MosaicForCausalLM, tokens: torch.Tensor, options: BenchmarkArguments
) -> tuple[tuple[tuple, dict], list[tuple[tuple, dict]]]:
    """Arguments of the first block, and of each leaky average in it."""
    block_calls = []
    hook = model.model.layers[0].register_forward_pre_hook(
        lambda module, args, kwargs: block_calls.append((args, kwargs)), with_kwargs=True
    )
    spy = mock.patch.object(modeling_mosaic, "leaky_average", wraps=leaky_average)
    with hook, spy as average, torch.no_grad(), autocast(options.device, options.dtype):
        model(input_ids=tokens, use_cache=False)
    calls = [(call.args, call.kwargs) for call in average.call_args_list]
    assert calls and len(calls) % len(model.model.layers) == 0, "the model no longer calls leaky_average"
    return block_calls[0], calls[: len(calls) // len(model.model.layers)]


def _training_pass(
    function: Callable, inputs: tuple[tuple, dict], parameters: list, execution: str, options
) -> Callable[[], object]:
    """Forward, and backward to the parameters and to all inputs that can have a gradient."""
    if execution == "compiled":
        function = torch.compile(function)
    args = [_as_leaf(value) for value in inputs[0]]
    kwargs = {name: _as_leaf(value) for name, value in inputs[1].items()}
    leaves = [value for value in (*args, *kwargs.values()) if getattr(value, "requires_grad", False)]
    with torch.no_grad(), autocast(options.device, options.dtype):
        upstream = torch.randn_like(_first(function(*args, **kwargs)))

    def run():
        with autocast(options.device, options.dtype):
            result = _first(function(*args, **kwargs))
        torch.autograd.grad(result, leaves + parameters, upstream)

    return run


def _as_leaf(value):
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        return value.detach().requires_grad_()
    return value


def _first(result):
    return result[0] if isinstance(result, tuple) else result
