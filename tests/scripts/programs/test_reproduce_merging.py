"""The experiments of merged memories: read in a row, they are what the model says of the whole sequence."""

import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from mosaic_lab.evaluation.losses import token_losses
from mosaic_lab.merging.report import redraw
from mosaic_lab.programs import reproduce
from mosaic_lab.regbench.automata import SEPARATOR
from mosaic_lab.regbench.data import Sizes, load
from mosaic_lab.regbench.experiment import fit_config
from mosaic_lab.regbench.metrics import measure
from mosaic_lab.training.corpus import load_stories
from mosaic_lab.training.options import DataArguments
from mosaic_lab.training.rows import pack_rows

STORIES = ("--num_stories", "100", "--validation_fraction", "0.1", "--block_size", "64", "--num_read", "32")
WAYS = [("merged", 1), ("merged", 2), ("merged", 4), ("alone", 2), ("alone", 4), ("nothing", 0)]


def run(recipe, models, folder, *options):
    argv = [recipe, "--models", *map(str, models), "--output_dir", str(folder), "--device", "cpu"]
    reproduce.main([*argv, "--num_parts", "1", "2", "4", "--num_sequences", "3", *options])
    results = json.loads((folder / "results.json").read_text())
    assert [[(way["memory"], way["num_parts"]) for way in each["ways"]] for each in results] == [WAYS] * len(
        results
    )
    return results


def means(result, metric):
    return {(way["memory"], way["num_parts"]): way[metric]["mean"] for way in result["ways"]}


def test_texts(trained, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("It was a warm day. " * 60)
    results = run("merging/stories", [trained], tmp_path / "out", *STORIES, "--other_text", str(other))
    assert [result["text"] for result in results] == ["stories", f"{tmp_path.name}/other.txt"]
    data = DataArguments(num_stories=100, validation_fraction=0.1, block_size=64)
    _, stories = load_stories(data)
    rows = pack_rows(stories, AutoTokenizer.from_pretrained(trained), 64).select(range(3))
    ids = np.array(rows["input_ids"])
    model = AutoModelForCausalLM.from_pretrained(trained)
    found = means(results[0], "loss")
    assert found["merged", 1] == pytest.approx(token_losses(model, ids)[:, 32:].mean(), abs=1e-5)
    assert found["nothing", 0] == pytest.approx(token_losses(model, ids[:, 32:]).mean(), abs=1e-5)
    assert found["alone", 4] == pytest.approx(token_losses(model, ids[:, 24:])[:, 8:].mean(), abs=1e-5)
    with np.load(tmp_path / "out" / "figures.npz") as arrays:
        assert all(array.shape == (len(WAYS), 3) for array in arrays.values())
    for name in ("results.md", "parts.png"):
        (tmp_path / "out" / name).unlink()
    assert "| Memory Mosaic | 2      | merged" in redraw(tmp_path / "out")
    assert (tmp_path / "out" / "parts.png").exists()


# Less than the strings that are read.
WINDOW = {"short_memory_size": 9, "long_memory_delay": 5, "long_memory_delay_range": (5, 5)}
MODELS = {
    "mosaic-1": {"model_type": "mosaic", "num_hidden_layers": 1},
    "mosaic-2": {"model_type": "mosaic", "num_hidden_layers": 2},
    "v2-2": {"model_type": "mosaic_v2", "num_hidden_layers": 2, **WINDOW},
    "window": {"model_type": "mosaic_v2", "num_hidden_layers": 1, "use_long_memory": False},
}


@pytest.fixture(scope="module")
def regbench(tmp_path_factory):
    """Untrained models with RegBench's vocabulary, by their names; the last one has no memory to merge."""
    folders = {name: tmp_path_factory.mktemp("models") / name for name in MODELS}
    for name, fields in MODELS.items():
        torch.manual_seed(len(name))
        config = fit_config({"hidden_size": 32, "num_attention_heads": 4, **fields}, 11)
        AutoModelForCausalLM.from_config(config).save_pretrained(folders[name])
    return folders


def test_strings(regbench, tmp_path):
    names = ["mosaic-1", "mosaic-2", "v2-2"]
    results = run("merging/regbench", [regbench[name] for name in names], tmp_path / "out")
    assert [(result["model_type"], result["num_layers"]) for result in results] == [
        ("mosaic", 1),
        ("mosaic", 2),
        ("mosaic_v2", 2),
    ]
    for result in results[1:]:
        check_strings(result, AutoModelForCausalLM.from_pretrained(regbench[result["model"]]))
    report = (tmp_path / "out" / "results.md").read_text()
    assert "total variation distance" in report and "| Memory Mosaic v2 | 2      | merged" in report


def check_strings(result, model):
    """Read in a row, strings are what the model says of the whole sequence without a cache."""
    accuracies, distances = [], []
    for row in load(Sizes(1, 1, 3, 11, False, 0))["test"]:
        ids = np.array(row["input_ids"])
        borders = [0, *np.flatnonzero(ids == SEPARATOR), len(ids)]
        # The separator behind the four strings that are read, and two strings more.
        measured = slice(borders[4], borders[6])
        assert len(list(pairwise(borders))) >= 10
        with torch.no_grad():
            probability = model(torch.tensor(ids[None])).logits[0].softmax(-1).numpy()
        legal, distance = measure(probability[measured], np.array(row["distribution"])[measured])
        accuracies.append(legal.mean())
        distances.append(distance.mean())
    assert means(result, "accuracy")["merged", 1] == pytest.approx(np.mean(accuracies))
    assert means(result, "distance")["merged", 1] == pytest.approx(np.mean(distances), abs=1e-5)


def test_wrong_input_is_named(trained, regbench, tmp_path, read_error):
    def error(recipe, model, *options):
        argv = (recipe, "--models", model, "--output_dir", tmp_path, *options)
        return read_error(reproduce.main, *argv)

    assert "num_parts must all divide the largest" in error(
        "merging/regbench", regbench["v2-2"], "--num_parts", "2", "3"
    )
    assert "num_parts must be below 10" in error("merging/regbench", regbench["v2-2"], "--num_parts", "16")
    said = error("merging/regbench", regbench["window"])
    assert f"model {regbench['window']}: use_long_memory is False" in said
    assert "was not trained on RegBench" in error("merging/regbench", trained)
    assert "num_read must be a multiple of 8" in error("merging/stories", trained, *STORIES[:-1], "31")
    assert "at most block_size - 2, 62" in error("merging/stories", trained, *STORIES[:-1], "64")
