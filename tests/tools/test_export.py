"""The forward pass through torch.export and ONNX, for other sizes than those that it was traced with."""

import pytest
import torch

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.mark.slow
def test_recipe(run_examples):
    names = run_examples("docs/tools.md", "## torch.export and ONNX")
    model, program, session = names["model"], names["exported"].module(), names["session"]
    for shape in ((2, 32), (3, 64), (2, 1024), (5, 400)):
        tokens = torch.randint(1, 250, shape, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            expected = model(tokens).logits
            exported = program(input_ids=tokens).logits
        (logits,) = session.run(["logits"], {"input_ids": tokens.numpy()})
        torch.testing.assert_close(exported, expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(torch.from_numpy(logits), expected, rtol=0, atol=1e-4)
    row = tokens[:1, :390]
    (filled,) = session.run(
        ["logits"], {"input_ids": torch.cat([row, torch.zeros_like(row[:, :10])], 1).numpy()}
    )
    with torch.no_grad():
        expected = model(row).logits
    torch.testing.assert_close(torch.from_numpy(filled)[:, :390], expected, rtol=0, atol=1e-4)
