import json

import pytest

from mosaic_lab.training.report import draw_curve, extract_curve, summarise, write_report

LOG = [
    {"step": 1, "loss": 4.0},
    {"step": 10, "loss": 2.0},
    {"step": 10, "eval_loss": 2.5},
    {"step": 20, "loss": 1.5},
    {"step": 20, "eval_loss": 1.9},
    {"step": 20, "eval_loss": 1.75},
    {"step": 20, "train_loss": 2.2, "train_runtime": 61.0},
]
RESULTS = {
    "model": "mosaic-tiny",
    "num_parameters": 1234567,
    "tokenizer": "GPT-2's",
    "steps": 20,
    "seconds": 61.4,
    "tokens_per_second": 1234.5,
}


def test_curve_and_summary(tmp_path):
    curve = extract_curve(LOG, 512, 3.0)
    assert curve["train"] == {"step": [1, 10, 20], "loss": [4.0, 2.0, 1.5]}
    assert curve["validation"] == {"step": [10, 20], "loss": [2.5, 1.75]}
    write_report(tmp_path, curve, RESULTS)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "loss_curve.json",
        "loss_curve.png",
        "results.json",
    ]
    assert json.loads((tmp_path / "loss_curve.json").read_text()) == curve
    summary = summarise(tmp_path, curve, RESULTS)
    for words in (
        "1,234,567 parameters",
        "1 min 1 s",
        "1,234 tokens/s",
        "1.500   first 4.000",
        "1.750   perplexity 5.75",
    ):
        assert words in summary
    assert str(tmp_path) in summary


@pytest.mark.parametrize("log", [[], LOG[:2]])
def test_curve_without_validation(tmp_path, log):
    curve = extract_curve(log, 512, None)
    (tmp_path / "curve.json").write_text(json.dumps(curve))
    draw_curve(tmp_path / "curve.json", tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert "perplexity" not in summarise(tmp_path, curve, RESULTS)
