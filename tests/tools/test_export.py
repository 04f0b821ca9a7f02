"""The forward pass through torch.export and ONNX, for other sizes than those that it was traced with."""

import pytest
import torch

from modeling_mosaic import MosaicConfig, MosaicForCausalLM


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("sample", [8, 48])
def test_an_exported_graph_takes_any_length(sample, masked):
    """Whatever that of the sample, in one chunk of the leaky average or in several."""
    torch.manual_seed(0)
    fields = dict(vocab_size=61, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, use_cache=False)
    model = MosaicForCausalLM(MosaicConfig(**fields, persistent_memory_size=20)).eval()

    def draw(*shape):
        inputs = dict(input_ids=torch.randint(1, 61, shape))
        if masked:
            inputs["attention_mask"] = torch.ones(shape, dtype=torch.long)
            inputs["attention_mask"][0, 0] = 0
        return inputs

    inputs = draw(2, sample)
    dims = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim("time", min=2, max=4096)}
    exported = torch.export.export(model, (), inputs, dynamic_shapes={name: dims for name in inputs}).module()
    for shape in ((2, 2), (3, 17), (2, 33), (4, 100), (2, 1030)):
        inputs = draw(*shape)
        with torch.no_grad():
            torch.testing.assert_close(exported(**inputs).logits, model(**inputs).logits, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_recipe(run_examples):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    names = run_examples("docs/tools.md", "## torch.export and ONNX")
    model, program, session = names["model"], names["exported"].module(), names["session"]
    for shape in ((2, 2), (3, 17), (5, 400), (2, 1024), (1, 33)):
        tokens = torch.randint(1, 250, shape, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            expected = model(tokens).logits
            exported = program(input_ids=tokens).logits
        (logits,) = session.run(["logits"], {"input_ids": tokens.numpy()})
        torch.testing.assert_close(exported, expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(torch.from_numpy(logits), expected, rtol=0, atol=1e-4)
