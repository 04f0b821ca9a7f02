import json

import numpy as np
import pytest

from mosaic_lab.attention_maps.plot import draw_maps, pick_first
from mosaic_lab.attention_maps.report import draw_all, write_report
from mosaic_lab.core.figures import plt
from mosaic_lab.core.files import write_arrays


def make_scores(seed, lambdas=None, context=100):
    generator = np.random.default_rng(seed)
    score_NHT = generator.uniform(0.5, 1.5, (1, 4, context))
    if lambdas is not None:
        score_NHT += 9 * np.array(lambdas)[:, None] ** np.arange(context)[::-1]
        score_NHT[..., -1] = 0
    return score_NHT / score_NHT.sum(-1, keepdims=True)


@pytest.fixture
def saved(tmp_path):
    """Two mosaics that differ in their seed, the second the flatter one, and a transformer."""
    lambdas = {"mosaic-0": [0.1, 0.5, 0.8, 0.9], "mosaic-1": [0.2, 0.1, 0.6, 0.7]}
    arrays, results = {}, []
    for seed, (name, kind) in enumerate([("mosaic-0", "mosaic"), ("llama", "llama"), ("mosaic-1", "mosaic")]):
        mean_NHT = make_scores(seed, lambdas.get(name))
        arrays |= {f"{name}/100/mean": mean_NHT, f"{name}/100/std": mean_NHT}
        if name in lambdas:
            arrays[f"{name}/100/lambda"] = np.array([lambdas[name]])
        result = {"name": f"{name}/100", "architecture": f"{kind}, 1 layer", "context": 100}
        results.append(result | {"num_sequences": 7, "num_tokens": 1000})
    write_arrays(tmp_path / "scores.npz", arrays)
    return tmp_path, results, arrays


def test_summary_and_tables(saved):
    folder, results, arrays = saved
    table = write_report(folder, results, block_size=50)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["block_size"] == 50 and len(summary["results"]) == 3
    mosaic, llama, _ = summary["results"]
    assert mosaic["heads"]["sink_share"] == arrays["mosaic-0/100/mean"][..., 0].tolist()
    assert mosaic["model"]["sink_share"] == pytest.approx(np.mean(mosaic["heads"]["sink_share"]))
    assert mosaic["model"]["far_to_near"] == pytest.approx(np.median(mosaic["heads"]["far_to_near"]))
    assert mosaic["rank_correlation_with_lambda"]["recency_share"] == pytest.approx(1)
    assert mosaic["heads"]["lambda"] == [[0.1, 0.5, 0.8, 0.9]]
    assert "lambda" not in llama["heads"] and "rank_correlation_with_lambda" not in llama
    both = np.mean([summary["results"][place]["heads"]["sink_share"] for place in (0, 2)])
    assert f"| 100 | mosaic, 1 layer | 2 | 7 | {both:.3g} (" in table
    assert table.count("| 100 | llama, 1 layer | 1 |") == 1 and table.count("mosaic, 1 layer | 8 |") == 1
    assert (folder / "summary.md").read_text() in table


def test_only_transformers_have_no_table_of_bumps(saved):
    folder, results, _ = saved
    assert "lambda" not in write_report(folder, results[1:2], 50)
    assert not (folder / "recency-100.png").exists() and (folder / "maps-100.png").exists()


def test_pictures_are_drawn_from_the_files(saved):
    folder, results, _ = saved
    write_report(folder, results, 50)
    before = {path.name: path.read_bytes() for path in folder.glob("*.png")}
    assert set(before) == {"maps-100.png", "recency-100.png"}
    for path in folder.glob("*.png"):
        path.unlink()
    assert draw_all(folder) == ["maps-100.png", "recency-100.png"]
    assert {path.name: path.read_bytes() for path in folder.glob("*.png")} == before


def test_numbers_that_json_lacks(saved):
    """A head whose attention has decayed to nothing has no ratio, and the file is JSON all the same."""
    folder, results, arrays = saved
    arrays["llama/100/mean"][0, 0, :84] = 0
    write_arrays(folder / "scores.npz", arrays)
    write_report(folder, results, 50)
    text = (folder / "summary.json").read_text()
    llama = json.loads(text, parse_constant=pytest.fail)["results"][1]
    assert llama["heads"]["far_to_near"][0][0] is None and llama["heads"]["far_to_near"][0][1] is not None
    assert llama["model"]["far_to_near"] is not None


def test_panels(saved):
    """A panel an architecture, of its first model; the unscored position of a mosaic is left out."""
    _, results, arrays = saved
    assert [result["name"] for result in pick_first(results)] == ["mosaic-0/100", "llama/100"]
    figure = draw_maps(results, arrays, block_size=50)
    assert [panel.get_title() for panel in figure.axes] == ["mosaic, 1 layer", "llama, 1 layer"]
    curves = [line for line in figure.axes[0].lines if len(line.get_ydata()) == 100]
    assert len(curves) == 4 and all(np.isnan(line.get_ydata()[-1]) for line in curves)
    np.testing.assert_array_equal(curves[2].get_ydata()[:-1], arrays["mosaic-0/100/mean"][0, 2, :-1])
    assert len(figure.axes[0].patches) == 1
    assert not draw_maps(results, arrays, block_size=100).axes[0].patches
    plt.close("all")
