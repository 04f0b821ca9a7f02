"""Parameters and operations of the paper's models (table 2), presets, and the paper's initialisation."""

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig

from modeling_mosaic import MosaicV2ForCausalLM

ROOT = Path(__file__).parents[2]
PRESETS = ROOT / "configuration" / "model"


def on_meta(config):
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def preset(name, **fields):
    return AutoConfig.from_pretrained(PRESETS / f"{name}.json", **fields)


def flops_per_token(model, context, num_memories):
    """Of a forward pass: two for each weight but the embedding's, and what half of the pairs take."""
    config = model.config
    weights = model.num_parameters() - model.get_input_embeddings().weight.numel()
    return 2 * weights + num_memories * 2 * config.num_hidden_layers * context * config.hidden_size


def test_the_paper_counts():
    """Billions of parameters, and of operations a token in a context of 256."""
    large = preset("mosaic-v2-large")
    same = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    transformer = LlamaConfig(**{name: getattr(large, name) for name in same})
    without = preset("mosaic-v2-large", use_long_memory=False)
    for config, num_memories, parameters, flops in (
        (transformer, 1, "8.8", "16.7"),
        (large, 2, "9.9", "18.9"),
        (without, 1, "8.3", "15.6"),
    ):
        model = on_meta(config)
        assert f"{model.num_parameters() / 1e9:.1f}" == parameters
        assert f"{flops_per_token(model, 256, num_memories) / 1e9:.1f}" == flops
    # No scalar more or less than one of each kind per memory and layer and head.
    d, hidden, heads, layers = (getattr(large, name) for name in same[1:3] + same[:2:-1])
    block = 6 * d**2 + 3 * d * hidden + 4 * d * heads + 2 * d + 10 * heads
    assert on_meta(large).num_parameters() == layers * block + 2 * large.vocab_size * d + d


def test_presets():
    page = (ROOT / "docs" / "v2.md").read_text()
    for name in ("mosaic-v2-large", "mosaic-v2-small", "mosaic-v2-12", "mosaic-v2-tiny"):
        assert f"| `{name}` | {on_meta(preset(name)).num_parameters():,} |" in page
    for ours, first in (
        ("mosaic-v2-12", "mosaic-12"),
        ("mosaic-v2-tiny", "mosaic-tiny"),
        *(
            (f"comparison/small/{kind}-{n}", f"comparison/small/gpt2-{n}")
            for kind in ("mosaic-v2", "llama")
            for n in (1, 2, 4)
        ),
        ("regbench/small/mosaic-v2", "regbench/small/mosaic"),
    ):
        found, expected = (on_meta(preset(name)).num_parameters() for name in (ours, first))
        assert found == pytest.approx(expected, rel=0.01), ours


def test_the_example_of_the_page(run_examples):
    assert run_examples("docs/v2.md", "## Use")["model"].config.intermediate_size == 192


@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_initialisation_of_the_paper(make_v2_config, factor):
    torch.manual_seed(0)
    config = make_v2_config(
        hidden_size=128, intermediate_size=300, num_hidden_layers=3, vocab_size=997, initializer_factor=factor
    )
    values = {"log_beta_0": 1.5, "log_beta_1": 1.5, "exponent": 1 / 3, "log_scale": 0.0, "norm.weight": 1.0}
    largest = 0
    for name, parameter in MosaicV2ForCausalLM(config).named_parameters():
        if expected := [value for end, value in values.items() if name.endswith(end)]:
            assert (parameter == torch.tensor(expected[0])).all(), name
        elif name.endswith("mix"):
            assert 0 <= parameter.min() and parameter.max() <= 1
        else:
            depth = int(name.split(".")[2]) + 1 if ".layers." in name else 1
            std = factor * (2 * (300 if "down_proj" in name else 128) * depth) ** -0.5
            # Their number decides how well the deviation can be told; clipping takes 0.5 % of it.
            tolerance = 3 * (2 * parameter.numel()) ** -0.5 + 0.005
            assert parameter.std().item() == pytest.approx(std, rel=tolerance), name
            assert parameter.abs().max() <= 3 * std * (1 + 1e-6)
            largest += int((parameter.abs() >= 3 * std * (1 - 1e-6)).sum())
    # Clipped, and not drawn again: 0.27 % of them lie on the bound.
    total = sum(parameter.numel() for parameter in MosaicV2ForCausalLM(config).parameters())
    assert largest / total == pytest.approx(0.0027, rel=0.1)
