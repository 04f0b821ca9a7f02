"""What follows from the learned scalars is kept between forward passes, and never longer than it is true."""

import copy

import pytest
import torch
from accelerate import dispatch_model

from modeling_mosaic.memory_norms import DerivedScalars


def train(model, tokens):
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(tokens, labels=tokens).loss.backward()
    optimizer.step()


def load(model, tokens):
    model.load_state_dict({name: weight + 0.1 for name, weight in model.state_dict().items()})


def replace(model, tokens):
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.ndim == 1:
                setattr(module, name, torch.nn.Parameter(parameter.detach() * 0.5))


def write(model, tokens):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.5)


def swap_data(model, tokens):
    """As `model.to(...)` does, and tools that merge adapters."""
    for parameter in model.parameters():
        parameter.data = parameter.data * 0.5


def convert(model, tokens):
    model.double()


def offload(model, tokens):
    """The weights come anew for each call of a module, changed by others here."""
    write(model, tokens)
    dispatch_model(model, {"": "cpu"}, main_device="cpu", force_hooks=True)


@pytest.mark.parametrize("change", [train, load, replace, write, swap_data, convert, offload])
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_a_change_is_noticed(make_model, random_tokens, change, context):
    model, tokens = make_model(), random_tokens(2, 9)
    with context():
        before = model(tokens).logits
        torch.testing.assert_close(model(tokens).logits, before, rtol=0, atol=0)
    kept = [module.derived for module in model.modules() if hasattr(module, "derived")]
    assert kept and all(derived.values is not None for derived in kept)
    change(model, tokens)
    with context():
        after = model(tokens).logits
    # A copy keeps nothing.
    fresh = copy.deepcopy(model)
    assert all(module.values is None for module in vars_of(fresh))
    with context():
        torch.testing.assert_close(after, fresh(tokens).logits, rtol=0, atol=0)
    if change is not convert:
        assert not torch.allclose(after.float(), before, atol=1e-3)


def vars_of(model):
    return [
        value
        for module in model.modules()
        for value in vars(module).values()
        if isinstance(value, DerivedScalars)
    ]


def test_gradients_are_those_of_the_scalars(make_model, random_tokens):
    """Whatever was kept by a pass without gradients before."""
    model, tokens = make_model(), random_tokens(2, 9)
    scalars = [parameter for parameter in model.parameters() if parameter.ndim == 1]
    expected = torch.autograd.grad(model(tokens, labels=tokens).loss, scalars, allow_unused=True)
    with torch.no_grad():
        model(tokens)
    found = torch.autograd.grad(model(tokens, labels=tokens).loss, scalars, allow_unused=True)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)
