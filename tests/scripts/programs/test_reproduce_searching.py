import json
import sys

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from modeling_mosaic import MosaicConfig, MosaicForCausalLM
from modeling_mosaic.compatibility import CACHE_NAME
from modeling_mosaic.memories.searched_cache import SearchedCache
from mosaic_lab.programs import reproduce
from mosaic_lab.searching.decode import as_dynamic, fill, losses_after, set_mode
from mosaic_lab.searching.report import redraw
from mosaic_lab.searching.scan import collect_pairs, measure_scan

pytest.importorskip("faiss", reason="the extra `search` is not installed")

SMALL = "searching/small"
DATA = ("--num_stories", "400", "--validation_fraction", "0.1", "--block_size", "64")
SIZES = ("--num_rows", "4", "--num_queries", "8", "--sizes", "8192", "--num_tokens", "8", "--num_timed", "3")


@pytest.fixture(scope="module")
def all_models(trained, tmp_path_factory):
    """Untrained models of one layer with the tokenizer of the trained mosaic."""
    sizes = {"vocab_size": 320, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
    folders = []
    for name in ("mosaic", "gpt2", "mosaic_v2"):
        folders.append(tmp_path_factory.mktemp(name) / name)
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **sizes))
        model.save_pretrained(folders[-1])
        AutoTokenizer.from_pretrained(trained).save_pretrained(folders[-1])
    return folders


@pytest.fixture(scope="module")
def models(all_models):
    """Those that can be measured."""
    return all_models[:2]


def test_what_a_run_leaves(models, tmp_path):
    arguments = [SMALL, "--models", *map(str, models), "--output_dir", str(tmp_path / "out"), *DATA, *SIZES]
    reproduce.main(arguments)
    names = {path.name for path in (tmp_path / "out").iterdir()} - {"lock"}
    assert names == {"mosaic", "gpt2", "searching.png", "figures.npz", "results.json", "results.md"}
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [result["name"] for result in results] == ["mosaic/scan", "mosaic/8192", "gpt2/scan"]
    assert all(0 < result[name][0] <= 1 for result in results[::2] for name in ("mass", "oracle", "nearest"))
    assert results[1]["num_pairs"] == 8191 and abs(results[1]["loss_change"]["exact"]) < 1e-4
    table = (tmp_path / "out" / "results.md").read_text()
    assert redraw(tmp_path / "out").startswith(table)


def test_other_kinds_are_refused(all_models, tmp_path, read_error):
    arguments = [SMALL, "--models", str(all_models[2]), "--output_dir", str(tmp_path / "out"), *DATA]
    said = read_error(reproduce.main, *arguments)
    assert "models: mosaic_v2: its model_type is mosaic_v2, and scans are of mosaic and gpt2" in said
    assert not (tmp_path / "out").exists()


def test_says_what_to_install(models, tmp_path, monkeypatch, read_error):
    monkeypatch.setitem(sys.modules, "faiss", None)
    arguments = [SMALL, "--models", str(models[0]), "--output_dir", str(tmp_path / "out"), *DATA]
    assert "pip install memory-mosaics[search]" in read_error(reproduce.main, *arguments)


def test_products_of_what_is_collected_are_what_the_softmax_gets(models):
    ids_NT = np.random.default_rng(0).integers(0, 320, (3, 20))
    for folder in models:
        model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
        (query_HND,), (key_HND,) = collect_pairs(model, ids_NT)
        weights = model(torch.from_numpy(ids_NT), output_attentions=True).attentions[0]
        time = key_HND.shape[1] // 3
        is_mosaic = model.config.model_type == "mosaic"
        for row in range(3):
            part = slice(row * time, (row + 1) * time)
            # Row t of the mosaic's weights has the pairs before t; the key of pair t is query t.
            hidden = torch.ones(time, time, dtype=torch.bool).triu(0 if is_mosaic else 1)
            score_HTT = query_HND[:, part] @ key_HND[:, part].transpose(1, 2)
            expected_HTT = score_HTT.masked_fill(hidden, -torch.inf).softmax(-1).nan_to_num()
            torch.testing.assert_close(weights[row, :, :time, :time], expected_HTT, rtol=1e-4, atol=1e-5)


def test_shares_of_separate_clusters():
    """The nearest of ten far-apart clusters holds the mass and the nearest pairs."""
    centre_LD = 8 * torch.eye(10)
    key_ND = centre_LD.repeat_interleave(200, 0) + 0.01 * torch.randn(2000, 10)
    shares = measure_scan(centre_LD, key_ND)
    assert shares["oracle"] == pytest.approx(0.095, abs=0.01)
    assert shares["left"] == pytest.approx(0.5, abs=0.05) and shares["left"] <= shares["certified"] <= 1
    assert shares["mass"] == pytest.approx(0.1, abs=0.03) and 0.05 < shares["nearest"] <= shares["mass"]


def test_filling_is_reading():
    """A memory filled without answers is the one that reading leaves, and a plain cache holds the same."""
    torch.manual_seed(0)
    config = MosaicConfig(vocab_size=61, hidden_size=32, num_hidden_layers=1, num_attention_heads=4)
    model = MosaicForCausalLM(config).eval()
    ids_T = np.random.default_rng(0).integers(1, 61, 3000)
    filled, read = (SearchedCache(config, min_pairs=400, tolerance=0.0) for _ in range(2))
    fill(model, filled, ids_T)
    with torch.no_grad():
        model(torch.from_numpy(ids_T)[None], **{CACHE_NAME: read})
    more_T = np.random.default_rng(1).integers(1, 61, 20)
    expected = losses_after(model, read, more_T)
    for cache in (filled, as_dynamic(model, filled)):
        np.testing.assert_allclose(losses_after(model, cache, more_T), expected, atol=1e-4)
    with set_mode(filled, "estimate"):
        assert np.abs(losses_after(model, filled, more_T) - expected).max() > 1e-4
    np.testing.assert_allclose(losses_after(model, filled, more_T), expected, atol=1e-4)
