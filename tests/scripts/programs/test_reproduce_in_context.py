import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from mosaic_lab.in_context.experiment import fit_config, plan_runs
from mosaic_lab.in_context.report import redraw
from mosaic_lab.programs import reproduce
from mosaic_lab.programs.reproduce import parse

CONFIGURATION = Path(__file__).parents[3] / "configuration" / "in_context"
RECIPES = sorted(CONFIGURATION.glob("*.yaml"))
SHORT = """
    --max_steps 2 --save_steps 1 --eval_steps 1 --logging_steps 1 --num_train 32 --num_validation 4
    --num_test 6 --disable_tqdm true --use_cpu true --per_device_train_batch_size 8
""".split()
SEVERAL = """
    --seeds 0 1 --models in_context/mosaic-v2-trained-pairs in_context/gpt2
    --grid {"gpt2":{"learning_rate":[1.0e-2,1.0e-9]}}
""".split()
ONE = "--seeds 0 --models in_context/mosaic --grid {}".split()
SIZES = {
    "recall": "--length 32 --counts 2 4 --test_lengths 32 40 --test_counts 2 10",
    "facts": "--length 64 --counts 1 3 --test_lengths 64 96 --test_counts 2 14",
    "labels": "--length 60 --counts 2 --test_lengths 60 --test_counts 2 3",
}
TESTS = {
    "recall": [[32, 2], [40, 2], [40, 10]],
    "facts": [[64, 2], [96, 2], [96, 14]],
    "labels": [[60, 2], [60, 3]],
}


def run(task, folder, models):
    reproduce.main(
        [
            str(CONFIGURATION / f"{task}.yaml"),
            "--output_dir",
            str(folder),
            *SHORT,
            *SIZES[task].split(),
            *models,
        ]
    )
    return json.loads((folder / "results.json").read_text())


@pytest.mark.parametrize("task", SIZES)
def test_what_a_run_leaves(task, tmp_path):
    (result,) = run(task, tmp_path, ONE)
    assert result["tests"] == TESTS[task] and result["num_positions"] == 0
    with np.load(tmp_path / result["name"] / "arrays.npz") as arrays:
        for (length, count), accuracy in zip(result["tests"], result["accuracy"], strict=True):
            number, right = (arrays[f"{name}_{length}_{count}"].sum() for name in ("number", "right"))
            assert accuracy == right / number and number >= 6
    assert not list(tmp_path.glob("**/*.partial")) and not list(tmp_path.glob("*/checkpoint-*"))


def test_report_of_several_models_rates_and_seeds(tmp_path):
    results = run("recall", tmp_path, SEVERAL)
    # One seed after the other.
    assert [result["seed"] for result in results] == 3 * [0] + 3 * [1]
    by_name = {result["name"]: result for result in results}
    fast, slow = (by_name[f"gpt2-learning_rate={rate}-seed0"] for rate in ("0.01", "1e-09"))
    assert fast["validation_loss"] < slow["validation_loss"]
    # A position for each token of the longest test.
    assert fast["num_positions"] == 40 * 64
    table = (tmp_path / "results.md").read_text()
    assert "learning_rate 0.01" in table and "1e-09" not in table and "±" in table
    assert (tmp_path / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    redraw(tmp_path)
    assert (tmp_path / "results.md").read_text() == table


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_shipped_recipes(path):
    """All contestants have as many parameters, but for positions; and each meets the task's longest rows."""
    options, arguments = parse([str(path)])[1]
    runs = plan_runs(options, arguments)
    assert len({run.name for run in runs}) == len(runs) == 3 * 2 * len(options.models)
    counts = {}
    for run in (run for run in runs if run.options["seed"] == 0):
        config = fit_config(run.options["config"], run.options)
        longest = max(length for length, _ in run.options["tests"])
        if not config.model_type.startswith("mosaic_v2"):
            assert config.max_position_embeddings == longest
        elif not config.use_long_memory:
            assert config.short_memory_size >= longest
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        counts[run.options["model"]] = sum(
            weight.numel() for name, weight in model.named_parameters() if ".wpe." not in name
        )
    assert set(counts) == set(options.names)
    assert all(count == pytest.approx(counts["mosaic-v2"], rel=1e-2) for count in counts.values()), counts
    assert arguments.load_best_model_at_end and "1e-" not in path.read_text()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ("--task sums", "task must be one of recall, facts, labels, not sums"),
        ("--counts 40", "40 pairs do not fit"),
        ("--test_lengths 128 8 --test_counts 4", "test_lengths: none of test_counts fits into 8 tokens"),
        ("--num_test 0", "num_test must be at least 1, not 0"),
        ("--seeds 1 1", "seeds must name one or more, each once"),
        ('--grid {"gpt2":{"width":[4]}}', "neither the Trainer nor in_context/gpt2 has an option 'width'"),
    ],
)
def test_wrong_options_are_named(tmp_path, read_error, options, problem):
    folder = tmp_path / "out"
    error = read_error(
        reproduce.main, CONFIGURATION / "recall.yaml", "--output_dir", folder, *options.split()
    )
    assert problem in error and not folder.exists()
