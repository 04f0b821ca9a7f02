"""LoRA adapters of PEFT: what they reach, that they train, and that they survive saving and merging."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from modeling_mosaic import MosaicForCausalLM

peft = pytest.importorskip("peft")

PROJECTIONS = {
    "contextual_memory.key_extractor.k_proj",
    "contextual_memory.v_proj",
    "contextual_memory.o_proj",
    "persistent_memory.key_extractor.k_proj",
    "persistent_memory.o_proj",
}


def adapted(modules_to_save=None):
    torch.manual_seed(0)
    options = dict(task_type="CAUSAL_LM", r=4, target_modules="all-linear", init_lora_weights=False)
    config = peft.LoraConfig(**options, modules_to_save=modules_to_save and [modules_to_save])
    return peft.get_peft_model(MosaicForCausalLM.from_pretrained("runs/demo"), config).eval()


def train(model, tokens, steps=5):
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    for _ in range(steps):
        losses.append(model(tokens, labels=tokens).loss)
        losses[-1].backward()
        optimizer.step()
        optimizer.zero_grad()
    return torch.stack(losses)


@pytest.fixture
def tokens(demo):
    return torch.randint(1, 250, (2, 24), generator=torch.Generator().manual_seed(0))


def test_all_linear_reaches_every_projection(tokens):
    model = adapted()
    names = {name for name, module in model.named_modules() if isinstance(module, peft.tuners.lora.LoraLayer)}
    assert names == {f"base_model.model.model.layers.{i}.{name}" for i in range(2) for name in PROJECTIONS}
    model(tokens, labels=tokens).loss.backward()
    adapters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert len(adapters) == 2 * len(names)
    assert all(p.grad.abs().max() > 0 for p in adapters.values())


@pytest.mark.parametrize("modules_to_save", [None, "persistent_memory"])
def test_trained_adapters_save_load_and_merge(tokens, modules_to_save):
    model = adapted(modules_to_save)
    kept = {n: p.clone() for n, p in model.named_parameters() if not p.requires_grad}
    trained = {n: p.clone() for n, p in model.named_parameters() if p.requires_grad}
    losses = train(model, tokens)
    assert losses[-1] < losses[0] - 0.05
    parameters = dict(model.named_parameters())
    assert all(torch.equal(parameters[name], value) for name, value in kept.items())
    assert not any(torch.equal(parameters[name], value) for name, value in trained.items())
    memories = [name for name in trained if name.endswith(("memory_keys", "memory_values"))]
    assert len(memories) == (4 if modules_to_save else 0)

    with torch.no_grad():
        expected = model(tokens).logits
        model.save_pretrained("adapter")
        loaded = peft.PeftModel.from_pretrained(MosaicForCausalLM.from_pretrained("runs/demo"), "adapter")
        torch.testing.assert_close(loaded.eval()(tokens).logits, expected, rtol=0, atol=0)
        merged = loaded.merge_and_unload()
        torch.testing.assert_close(merged(tokens).logits, expected, rtol=0, atol=1e-5)
        merged.save_pretrained("merged")
        again = MosaicForCausalLM.from_pretrained("merged")
        torch.testing.assert_close(again(tokens).logits, expected, rtol=0, atol=1e-5)


def test_parameters_of_four_dimensions_are_refused(demo):
    """Why the README names `modules_to_save` and not `target_parameters`."""
    config = peft.LoraConfig(target_parameters=["memory_keys"], target_modules=[])
    with pytest.raises(ValueError, match="4 dimensional"):
        peft.get_peft_model(MosaicForCausalLM.from_pretrained("runs/demo"), config)


def test_prefix_tuning(tokens):
    """It hands over keys and values without states."""
    torch.manual_seed(0)
    config = peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5)
    model = peft.get_peft_model(MosaicForCausalLM.from_pretrained("runs/demo"), config).eval()
    losses = train(model, tokens, steps=20)
    assert losses[-1] < losses[0]
    prefix = model.get_prompt(len(tokens))
    mask = torch.ones(len(tokens), 5 + tokens.shape[1], dtype=torch.long)
    with torch.no_grad():
        expected = model.base_model(tokens, attention_mask=mask, cache=prefix).logits
        torch.testing.assert_close(model(tokens).logits, expected)


def test_recipe(run_examples):
    names = run_examples("docs/tools.md", "## LoRA with PEFT")
    assert names["losses"][-1] < names["losses"][0]
    tokens = names["inputs"]["input_ids"]
    loss = AutoModelForCausalLM.from_pretrained("runs/cat")(tokens, labels=tokens).loss
    assert loss < names["losses"][-1] + 0.1
