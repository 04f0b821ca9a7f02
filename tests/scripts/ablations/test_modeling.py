"""Memory Mosaics v2 with one change taken back."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from modeling_mosaic import MosaicConfig, MosaicForCausalLM, MosaicV2Config, MosaicV2ForCausalLM
from modeling_mosaic.leaky_average import leaky_average_reference
from mosaic_lab.ablations.modeling import CHANGES

SIZES = {
    "vocab_size": 40,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "short_memory_size": 8,
    "long_memory_delay": 4,
    "long_memory_delay_range": (4, 8),
    "bos_token_id": None,
    "eos_token_id": None,
    "use_cache": False,
}
# Parameters that are gone, and those that came, of one memory or block.
EXCHANGED = {
    "bandwidth": ({"log_beta_1", "exponent"}, set()),
    "gates": ({"gain_proj.weight", "leak_proj.weight"}, {"leak_proj.leak_norm"}),
    "swiglu": (
        {"gate_proj.weight", "up_proj.weight", "down_proj.weight"},
        {
            "memory_keys",
            "memory_values",
            "log_value_norm",
            "k_proj.weight",
            "leak",
            "log_scale",
            "o_proj.weight",
        },
    ),
}


def build(taken_back, seed=0):
    torch.manual_seed(seed)
    config = AutoConfig.for_model("mosaic_v2_ablated", **SIZES, taken_back=taken_back)
    return AutoModelForCausalLM.from_config(config)


@pytest.fixture
def ids():
    return torch.randint(40, (3, 30), generator=torch.Generator().manual_seed(1))


def test_nothing_taken_back_is_the_second_model(ids):
    torch.manual_seed(0)
    model, same = MosaicV2ForCausalLM(MosaicV2Config(**SIZES)), build(None)
    for training in (False, True):
        logits = []
        for each in (model, same):
            torch.manual_seed(2)
            logits.append(each.train(training)(ids).logits)
        assert torch.equal(*logits)


@pytest.mark.parametrize("taken_back", CHANGES)
def test_what_is_exchanged(taken_back, ids, tmp_path):
    """Each differs from the second model in its parameters alone, trains all of them, and can be saved."""
    model = build(taken_back)
    names = [{name for name, _ in each.named_parameters()} for each in (build(None), model)]
    gone, new = (
        {name for name in one - other} for one, other in ((names[0], names[1]), (names[1], names[0]))
    )
    for found, endings in zip((gone, new), EXCHANGED[taken_back], strict=True):
        assert {ending for ending in endings if any(name.endswith("." + ending) for name in found)} == endings
        assert all(name.endswith(tuple(endings)) for name in found)
    model(ids, labels=ids).loss.backward()
    assert all(weight.grad is not None and weight.grad.any() for weight in model.parameters())
    model.eval().save_pretrained(tmp_path)
    assert not list(tmp_path.glob("*.py"))
    again = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert torch.equal(again(ids).logits, model(ids).logits)
    assert (build(None).eval()(ids).logits - model(ids).logits).abs().max() > 1e-3


def key_norms(model):
    memory = model.model.layers[0].contextual_memory
    return memory.short_memory.key_norm, memory.long_memory.key_norm


@pytest.mark.parametrize("taken_back", [None, *CHANGES])
def test_bandwidth_depends_on_the_number_of_pairs_unless_it_is_taken_back(taken_back):
    key = torch.randn(2, 4, 5, 8)
    rates = torch.zeros(2, 4, 5)
    masks = {"keep": None, "start": None}
    for norm in key_norms(build(taken_back)):
        lengths = [
            norm(key, rates, rates, torch.full((1, 1, 5, 1), float(count)).log(), None, masks)[0].norm(dim=-1)
            for count in (1, 100)
        ]
        if taken_back == "bandwidth":
            # alpha_phi starts at e in the first model, and beta is its square.
            torch.testing.assert_close(lengths[0], torch.full_like(rates, torch.e**2))
            torch.testing.assert_close(*lengths)
        else:
            assert (lengths[1] > lengths[0] + 1).all()


def test_keys_without_gates_are_those_of_the_first_model():
    """Whatever the text: the leaky average of equation 7, with the rates that the first model starts with."""
    model, hidden = build("gates"), torch.randn(2, 6, 32)
    memory = model.model.layers[1].contextual_memory.long_memory
    first = MosaicForCausalLM(MosaicConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=4))
    leak_norm = first.model.layers[0].contextual_memory.key_extractor.leaky_norm
    assert torch.equal(memory.leak_proj.leak_norm, leak_norm.leak)
    masks = {"continues": False, "keep": None, "start": None, "long": None} | {
        "long_log_pairs": torch.zeros(1)
    }
    _, _, _, ((average, _), _, _) = memory.extract(hidden, masks, None)
    raw = memory.k_proj(hidden).unflatten(-1, (4, 8)).transpose(1, 2)
    expected, _ = leaky_average_reference(raw, 10 * leak_norm.leak)
    unit, expected = (states / states.norm(dim=-1, keepdim=True) for states in (average, expected))
    torch.testing.assert_close(unit, expected)


def test_trained_pairs_are_those_of_the_first_model(ids):
    model = build("swiglu")
    memory = model.model.layers[0].persistent_memory
    assert memory.memory_keys.shape == (1, 4, 24, 8)
    # Of the first model's spread, 1 / sqrt(fan-in), and not of table 6.
    assert memory.key_extractor.k_proj.weight.std().item() == pytest.approx(32**-0.5, rel=0.1)
    assert memory.o_proj.weight.std().item() == pytest.approx(64**-0.5, rel=0.1)
    padded = torch.nn.functional.pad(ids, (4, 0))
    mask = (torch.arange(34) >= 4).long().expand(3, -1)
    model.eval()
    torch.testing.assert_close(model(padded, attention_mask=mask).logits[:, 4:], model(ids).logits)
    with pytest.raises(ValueError, match="use_cache must be False"):
        model(ids, use_cache=True)


def test_wrong_change_is_named():
    with pytest.raises(Exception, match="taken_back must be one of bandwidth, gates, swiglu, not 'gate'"):
        AutoConfig.for_model("mosaic_v2_ablated", **SIZES, taken_back="gate")
