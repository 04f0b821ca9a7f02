"""Weights of eight bits: which are quantised, how far logits move, and that files keep them."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from modeling_mosaic import MosaicForCausalLM

PROJECTIONS = {
    "contextual_memory.key_extractor.k_proj",
    "contextual_memory.v_proj",
    "contextual_memory.o_proj",
    "persistent_memory.key_extractor.k_proj",
    "persistent_memory.o_proj",
}


@pytest.fixture
def tokens():
    return torch.randint(1, 250, (2, 64), generator=torch.Generator().manual_seed(0))


def find_quantised(model, kind):
    return {name for name, module in model.named_modules() if type(getattr(module, "weight", None)) is kind}


def all_projections(model):
    layers = range(model.config.num_hidden_layers)
    return {f"model.layers.{layer}.{name}" for layer in layers for name in PROJECTIONS}


def assert_close_to_the_original(model, tokens):
    original = MosaicForCausalLM.from_pretrained("runs/demo")
    with torch.no_grad():
        expected, outputs = original(tokens, labels=tokens), model(tokens, labels=tokens)
    difference = (outputs.logits - expected.logits).norm() / expected.logits.norm()
    assert 0 < difference < 0.02
    assert abs(outputs.loss - expected.loss) < 0.01
    for name, parameter in original.named_parameters():
        if name.endswith(("memory_keys", "memory_values")):
            assert torch.equal(model.get_parameter(name), parameter)


def test_torchao(run_examples, tokens):
    Int8Tensor = pytest.importorskip("torchao.quantization").Int8Tensor
    model = run_examples("docs/tools.md", "## Eight-bit weights")["model"]
    names = all_projections(model)
    assert find_quantised(model, Int8Tensor) == names
    assert_close_to_the_original(model, tokens)
    new = dict(max_new_tokens=8, do_sample=False)
    loaded = AutoModelForCausalLM.from_pretrained("runs/demo-int8")
    assert torch.equal(loaded(tokens).logits, model(tokens).logits)
    assert torch.equal(loaded.generate(tokens, **new), model.generate(tokens, **new))
    before, after = (Path(f"runs/{name}/model.safetensors").stat().st_size for name in ("demo", "demo-int8"))
    saved = 3 * len(names) * model.config.hidden_size**2
    assert before - after > saved / 2


def test_bitsandbytes(demo, tokens):
    Int8Params = pytest.importorskip("bitsandbytes.nn").Int8Params
    int8 = BitsAndBytesConfig(load_in_8bit=True)
    model = AutoModelForCausalLM.from_pretrained("runs/demo", quantization_config=int8)
    assert find_quantised(model, Int8Params) == all_projections(model)
    assert_close_to_the_original(model, tokens)
    model.save_pretrained("runs/demo-int8")
    loaded = AutoModelForCausalLM.from_pretrained("runs/demo-int8")
    assert torch.equal(loaded(tokens).logits, model(tokens).logits)
