"""`reproduce` of a comparison as a user runs it: real training runs in processes of their own."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from mosaic_lab.comparison.experiment import plan_runs
from mosaic_lab.core.fingerprint import hash_texts
from mosaic_lab.programs import reproduce
from mosaic_lab.programs.reproduce import parse
from mosaic_lab.programs.train import make_parser
from mosaic_lab.training.corpus import load_stories
from mosaic_lab.training.model import read_config
from mosaic_lab.training.options import DataArguments

CONFIGURATION = Path(__file__).parents[3] / "configuration"
SETS = sorted((CONFIGURATION / "comparison").glob("*.yaml"))


@pytest.fixture(scope="module")
def small_set(recipe, tmp_path_factory):
    """A set of a mosaic and a GPT-2 with the recipe of conftest.py."""
    folder = tmp_path_factory.mktemp("set")
    gpt2 = {
        "model_type": "gpt2",
        "vocab_size": 320,
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 4,
        "n_positions": 64,
    }
    (folder / "gpt2.json").write_text(json.dumps(gpt2))
    mosaic = json.loads((recipe.parent / "model.json").read_text())
    (folder / "mosaic.json").write_text(json.dumps(mosaic))
    models = [str(folder / "mosaic.json"), str(folder / "gpt2.json")]
    (folder / "set.yaml").write_text(
        yaml.dump(
            {
                "experiment": "comparison",
                "training_recipe": str(recipe),
                "models": models,
                "output_dir": str(folder / "out"),
            }
        )
    )
    return folder / "set.yaml"


@pytest.fixture(scope="module")
def finished(small_set, tmp_path_factory):
    folder = tmp_path_factory.mktemp("comparison")
    reproduce.main([str(small_set), "--seeds", "0", "1", "--output_dir", str(folder)])
    return folder


def test_what_the_runs_leave(finished):
    names = [f"{model}-seed{seed}" for seed in (0, 1) for model in ("mosaic", "gpt2")]
    results = json.loads((finished / "results.json").read_text())
    assert [result["name"] for result in results] == names
    for result in results:
        folder = finished / result["name"]
        curve = json.loads((folder / "loss_curve.json").read_text())
        assert result["validation_loss"] == curve["validation"]["loss"][-1]
        assert result["num_parameters"] == AutoModelForCausalLM.from_pretrained(folder).num_parameters()
        with np.load(finished / "figures.npz") as arrays:
            assert arrays[f"{result['name']}/train_loss"] == pytest.approx(curve["train"]["loss"])
    assert (finished / "curves.png").read_bytes().startswith(b"\x89PNG")
    table = (finished / "results.md").read_text()
    ours, theirs = (
        np.mean([result["validation_loss"] for result in results if result["model"] == model])
        for model in ("mosaic", "gpt2")
    )
    assert f"mosaic minus gpt2: {ours - theirs:+.3f}" in table
    train, validation = load_stories(DataArguments(num_stories=100, validation_fraction=0.1))
    sha256 = hash_texts([*train["text"], *validation["text"]])
    assert f"90 stories to train on, 10 to validate on, sha256 {sha256}" in table


def test_a_run_is_what_train_py_does(finished, small_set, recipe, tmp_path):
    model = yaml.safe_load(small_set.read_text())["models"][0]
    command = [sys.executable, "scripts/train.py", recipe, "--model", model, "--seed", "1", "--output_dir"]
    subprocess.run([*map(str, command), str(tmp_path)], check=True, cwd=CONFIGURATION.parent)
    alone, ours = (load_file(path / "model.safetensors") for path in (tmp_path, finished / "mosaic-seed1"))
    assert all(torch.equal(alone[name], weight) for name, weight in ours.items())


def test_done_runs_are_kept_and_others_refused(finished, small_set, read_error, capsys):
    weights = finished / "gpt2-seed1" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    reproduce.main([str(small_set), "--seeds", "0", "1", "--output_dir", str(finished)])
    assert weights.stat().st_mtime_ns == before
    options = ("--seeds", "0", "1", "--output_dir", finished, "--learning_rate", "1e-3")
    error = read_error(reproduce.main, small_set, *options)
    assert "mosaic-seed0 was begun with other options" in error and "learning_rate" in error


@pytest.mark.slow
def test_launcher(finished, small_set, recipe, tmp_path):
    """Started by accelerate, a run gives the same."""
    launcher = f"{sys.executable} -m accelerate.commands.launch --cpu --num_processes 1"
    reproduce.main([str(small_set), "--launcher", launcher, "--output_dir", str(tmp_path), "--seeds", "0"])
    losses = [json.loads((path / "results.json").read_text()) for path in (tmp_path, finished)]
    assert losses[0][0]["validation_loss"] == pytest.approx(losses[1][0]["validation_loss"], rel=1e-5)


@pytest.mark.parametrize(
    "options, message",
    [
        (["--models"], "expected at least one argument"),
        (["--seeds", "1", "1"], "seeds must name one or more, each once, not [1, 1]"),
        (["--seed", "3"], "--seed tells the runs of a comparison apart"),
        (["--model=x"], "--model tells the runs of a comparison apart"),
        (["--learning_rat", "3"], "unrecognized arguments: --learning_rat 3"),
        (["--learning_rate", "fast"], "invalid float value: 'fast'"),
        (["--eval_strategy", "no"], "eval_strategy no: a comparison needs the losses"),
        (["--max_steps", "1"], "logging_steps must be at most max_steps, 1, not 2"),
        (["--launcher", "no-such-launcher"], "launcher 'no-such-launcher': No such file"),
        (["--launcher", "false"], "train ended with status 1"),
        (["--models", "nowhere.json"], "model nowhere.json"),
    ],
)
def test_wrong_options(options, message, small_set, tmp_path, read_error):
    error = read_error(reproduce.main, small_set, "--output_dir", tmp_path / "out", *options)
    assert message in error


@pytest.mark.parametrize("path", SETS, ids=lambda path: path.stem)
def test_shipped_sets(path, tmp_path, monkeypatch):
    """Each set's options are valid, and its models have as many parameters as a GPT-2 of the same depth."""
    monkeypatch.chdir(tmp_path)
    _, (comparison, passed_on) = parse([f"comparison/{path.stem}"])
    for run in plan_runs(comparison, passed_on):
        assert run.options["recipe"]["weight_decay"] == 0.1
    (_, data, *_) = make_parser().parse([comparison.training_recipe])
    counts: dict[int, dict[str, int]] = {}
    for model in comparison.models:
        config = read_config(model)
        with torch.device("meta"):
            count = AutoModelForCausalLM.from_config(config).num_parameters()
        counts.setdefault(config.num_hidden_layers, {})[config.model_type] = count
        assert config.model_type != "gpt2" or config.n_positions == data.block_size
    for models in counts.values():
        for kind, count in models.items():
            # Bloom lacks what GPT-2 spends on positions, and its layers have one shape only.
            expected = models.get("gpt2", count)
            assert count == pytest.approx(expected, rel=0.13 if kind == "bloom" else 0.011)
