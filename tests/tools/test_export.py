"""The forward pass through torch.export and ONNX, for other sizes than those that it was traced with."""

import pytest
import torch

from modeling_mosaic import MosaicConfig, MosaicForCausalLM, MosaicV2Config, MosaicV2ForCausalLM


def make_model(kind="mosaic"):
    fields = dict(vocab_size=61, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, use_cache=False)
    if kind == "mosaic":
        return MosaicForCausalLM(MosaicConfig(**fields, persistent_memory_size=20)).eval()
    fields |= dict(short_memory_size=16, long_memory_delay=9, long_memory_delay_range=(9, 9))
    return MosaicV2ForCausalLM(MosaicV2Config(**fields)).eval()


def draw_padded(*shape):
    mask = torch.ones(shape, dtype=torch.long)
    mask[0, 0] = 0
    return dict(input_ids=torch.randint(1, 61, shape), attention_mask=mask)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind, sample", [("mosaic", 8), ("mosaic", 48), ("mosaic_v2", 48)])
def test_an_exported_graph_takes_any_length(kind, sample, masked):
    """Whatever that of the sample, in one chunk of the leaky average or in several."""
    torch.manual_seed(0)
    model = make_model(kind)

    def draw(*shape):
        inputs = draw_padded(*shape)
        return inputs if masked else {"input_ids": inputs["input_ids"]}

    inputs = draw(2, sample)
    dims = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim("time", min=2, max=4096)}
    exported = torch.export.export(model, (), inputs, dynamic_shapes={name: dims for name in inputs}).module()
    for shape in ((2, 2), (3, 17), (2, 33), (4, 100), (2, 1030)):
        inputs = draw(*shape)
        with torch.no_grad():
            # One chunk adds up the leaks of all tokens.
            atol = 1e-5 if kind == "mosaic" else 1e-4
            torch.testing.assert_close(exported(**inputs).logits, model(**inputs).logits, rtol=0, atol=atol)


@pytest.mark.slow
def test_recipe(run_examples):
    for module in ("onnxruntime", "onnxscript", "transformers.exporters.runners"):
        pytest.importorskip(module)
    names = run_examples("docs/tools.md", "## torch.export and ONNX")
    model, program, session = names["model"], names["exported"].module(), names["session"]

    def draw(*shape):
        return torch.randint(1, 250, shape, generator=torch.Generator().manual_seed(0))

    for shape in ((2, 2), (3, 17), (2, 33), (5, 400), (1, 7)):
        tokens = draw(*shape)
        with torch.no_grad():
            expected = model(tokens).logits
        if shape[0] > 1:
            torch.testing.assert_close(program(input_ids=tokens).logits, expected, rtol=0, atol=1e-5)
        (logits,) = session.run(["logits"], {"input_ids": tokens.numpy()})
        torch.testing.assert_close(torch.from_numpy(logits), expected, rtol=0, atol=1e-4)

    for rows, time, padding in (
        (2, 16, 4),
        (3, 21, 0),
        (3, 33, 20),
        (1, 5, 0),
        (4, 2, 1),
        (20, 3, 1),
        (2, 100, 50),
    ):
        tokens, mask = draw(rows, time), torch.ones(rows, time, dtype=torch.long)
        mask[0, :padding] = 0
        expected = model.generate(
            tokens, attention_mask=mask, max_new_tokens=12, do_sample=False, eos_token_id=-1
        )
        assert torch.equal(names["generate"](tokens, mask, 12), expected)


@pytest.mark.slow
def test_onnx_with_a_mask():
    """The forward pass without a cache, by transformers' exporter."""
    for module in ("onnxruntime", "onnxscript", "transformers.exporters.runners"):
        pytest.importorskip(module)
    from transformers.exporters import OnnxExporter
    from transformers.exporters.configs import OnnxConfig

    torch.manual_seed(0)
    model = make_model()
    exported = OnnxExporter().export(model, draw_padded(2, 16), OnnxConfig(dynamic=True))
    for shape in ((2, 2), (3, 17), (1, 33), (20, 2), (2, 1030)):
        inputs = draw_padded(*shape)
        with torch.no_grad():
            torch.testing.assert_close(exported(**inputs).logits, model(**inputs).logits, rtol=0, atol=1e-4)
