import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, Trainer

from mosaic_lab.programs import reproduce
from mosaic_lab.programs.reproduce import parse
from mosaic_lab.regbench.experiment import fit_config, plan_runs
from mosaic_lab.regbench.options import NGRAMS
from mosaic_lab.regbench.report import choose_best, format_table
from mosaic_lab.training.contestants import read_values
from mosaic_lab.training.model import PRESETS

CONFIGURATION = Path(__file__).parents[3] / "configuration" / "regbench"
RECIPES = sorted(path for path in CONFIGURATION.glob("*.yaml") if path.stem != "data")
SMALL = CONFIGURATION / "small.yaml"
GRID = '{"mosaic": {"learning_rate": [1e-2, 1e-9]}}'
SHORT = """
    --max_steps 6 --save_steps 3 --eval_steps 3 --logging_steps 2 --num_automata 16 --num_validation 8
    --num_test 40 --max_string_length 4 --disable_tqdm true --use_cpu true --per_device_train_batch_size 8
""".split()


def run(folder, *options):
    reproduce.main([str(SMALL), "--output_dir", str(folder), *SHORT, *options])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("regbench")
    run(folder, "--models", "regbench/small/mosaic", "regbench/small/rwkv", "2-gram", "--grid", GRID)
    return folder


def test_what_a_run_leaves(finished):
    runs = sorted(path.name for path in finished.iterdir() if path.is_dir())
    first, second = (f"mosaic-16automata-learning_rate={rate}-seed0" for rate in ("0.01", "1e-09"))
    assert runs == sorted(["2-gram", first, second, "rwkv-16automata-seed0"])
    results = {result["name"]: result for result in json.loads((finished / "results.json").read_text())}
    assert results[first]["validation_loss"] < results[second]["validation_loss"]
    assert results["2-gram"]["tvd"] < results[first]["tvd"] < 1
    table = (finished / "results.md").read_text()
    assert "learning_rate 0.01" in table and "1e-09" not in table
    for name in ("sizes.png", "places.png"):
        assert (finished / name).read_bytes().startswith(b"\x89PNG")
    for result in results.values():
        with np.load(finished / result["name"] / "arrays.npz") as arrays:
            for place in ("position", "string"):
                mean = np.average(arrays[f"tvd_by_{place}"], weights=arrays[f"count_by_{place}"])
                assert mean == pytest.approx(result["tvd"])
    assert not list(finished.glob("**/*.partial")) and not list(finished.glob("*/checkpoint-*"))


def test_best_checkpoint_is_the_one_that_is_tested(tmp_path):
    """The first step learns nothing, as its learning rate is 0; each later one moves every weight by ten."""
    options = (
        "--models",
        "regbench/small/gpt2",
        "--grid",
        "{}",
        "--lr_scheduler_type",
        "constant_with_warmup",
    )
    options += ("--warmup_steps", "1", "--learning_rate", "10", "--eval_steps", "1", "--save_steps", "1")
    results = []
    for max_steps in (6, 1):
        folder = tmp_path / str(max_steps)
        run(folder, *options, "--max_steps", str(max_steps))
        results.append(json.loads((folder / "gpt2-16automata-seed0" / "result.json").read_text()))
    state = json.loads((tmp_path / "6" / "gpt2-16automata-seed0" / "trainer_state.json").read_text())
    losses = [entry["eval_loss"] for entry in state["log_history"] if "eval_loss" in entry]
    # What is best, and that by far, does not hang on rounding.
    assert len(losses) == 6 and losses[0] < min(losses[1:]) - 1
    assert results[0]["best_step"] == 1 and results[0]["validation_loss"] == losses[0]
    for name in ("validation_loss", "accuracy", "tvd"):
        assert results[0][name] == results[1][name]


def test_resumed_run_ends_with_the_same_figures(finished, tmp_path, monkeypatch):
    save = Trainer._save_checkpoint

    def stop(trainer, *args, **kwargs):
        save(trainer, *args, **kwargs)
        raise KeyboardInterrupt

    options = ("--models", "regbench/small/mosaic", "--grid", '{"mosaic": {"learning_rate": [1e-2]}}')
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_save_checkpoint", stop)
        with pytest.raises(SystemExit):
            run(tmp_path, *options)
    name = "mosaic-16automata-learning_rate=0.01-seed0"
    assert (tmp_path / name / "checkpoint-3").exists()
    run(tmp_path, *options)
    resumed, straight = (
        json.loads((folder / name / "result.json").read_text()) for folder in (tmp_path, finished)
    )
    resumed.pop("seconds"), straight.pop("seconds")
    assert resumed == straight
    weights = [load_file(folder / name / "model.safetensors") for folder in (tmp_path, finished)]
    assert all(torch.equal(weights[0][key], weight) for key, weight in weights[1].items())


def test_in_distribution(tmp_path):
    """Automata seen in training are easier than new ones even for a model that has learned little."""
    options = ("--models", "regbench/small/mosaic", "--grid", "{}", "--max_steps", "60", "--eval_steps", "20")
    options += ("--save_steps", "20", "--learning_rate", "0.01", "--num_automata", "4")
    run(tmp_path / "new", *options)
    run(tmp_path / "known", *options, "--in_distribution")
    new, known = (
        json.loads((tmp_path / name / "mosaic-4automata-seed0" / "result.json").read_text())
        for name in ("new", "known")
    )
    assert known["accuracy"] > new["accuracy"] + 0.1 and known["tvd"] < new["tvd"] - 0.1


def test_equal_parameters():
    """All models of the small profile have as many as GPT-2, to half a percent."""
    counts = {}
    for path in (PRESETS / "regbench" / "small").glob("*.json"):
        config = fit_config(read_values(str(path), {}), max_string_length=11)
        with torch.device("meta"):
            counts[path.stem] = AutoModelForCausalLM.from_config(config).num_parameters()
    assert len(counts) >= 5
    assert all(count == pytest.approx(counts["gpt2"], rel=5e-3) for count in counts.values()), counts


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_shipped_recipes(path):
    """Every run of every recipe has a config that builds, and options that the Trainer takes."""
    benchmark, arguments = parse([str(path)])[1]
    runs = plan_runs(benchmark, arguments)
    assert len({run.name for run in runs}) == len(runs)
    assert {run.options["model"] for run in runs} == set(benchmark.names)
    for run in runs:
        if run.options["model"] not in NGRAMS:
            config = fit_config(run.options["config"], benchmark.max_string_length)
            assert config.hidden_size == run.options["config"]["hidden_size"]
            assert config.vocab_size == 20
            assert type(run.options["learning_rate"]) is float
    assert arguments.load_best_model_at_end and "1e-" not in path.read_text()


def test_derived_sizes_follow_the_grid():
    """3.5 pairs a dimension in the mosaic's persistent memories, 4 units in GPT-2's feed-forward network."""
    for hidden_size in (64, 256):
        values = read_values("regbench/full/mosaic", {"hidden_size": hidden_size})
        assert fit_config(values, 49).persistent_memory_size == 7 * hidden_size // 2
        config = fit_config(read_values("regbench/full/gpt2", {"hidden_size": hidden_size}), 49)
        assert config.n_embd == hidden_size and config.n_inner is None and config.n_positions == 949


def test_best_run_is_chosen_by_validation_loss():
    results = [
        {
            "model": "mosaic",
            "num_automata": size,
            "validation_loss": loss,
            "accuracy": accuracy,
            "tvd": 0.5,
        }
        | {"num_parameters": 9, "chosen": {"learning_rate": rate}, "best_step": 1, "seed": seed}
        for size, rate, seed, loss, accuracy in (
            (100, 1, 0, 2.0, 0.9),
            (100, 2, 0, 1.5, 0.7),
            (100, 2, 1, 1.7, 0.5),
            (500, 1, 0, 1.7, 0.8),
        )
    ]
    best = choose_best(results)
    assert [result["accuracy"] for result in best] == [0.6, 0.8]
    table = format_table(best)
    assert table.count("mosaic") == 2 and "1.6000 ± 0.1000" in table and "0.600 ± 0.100" in table


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ("--models nobody --grid {}", "model nobody"),
        ("--models mosaic mosaic", "models must name one or more, each once"),
        ("--max_string_length 0", "max_string_length must be at least 1, not 0"),
        ("--num_automata 0", "num_automata must be at least 1, not [0]"),
        ("--models 1-gram regbench/small/1-gram", "models must differ in the last parts of their names"),
        ("--grid {", "grid must be JSON, not '{'"),
        ('--grid {"lstm":{"hidden_size":[4]}}', "grid: lstm is none of the models to train, mosaic, gpt2"),
        ('--grid {"gpt2":{"hidden_size":4}}', "grid: gpt2 must have {name: [value, ...]}"),
        ('--grid {"mosaic":{"hidden_size":[30]}}', "hidden_size (30) must be a multiple"),
        (
            '--grid {"gpt2":{"hiden_size":[4]}}',
            "neither the Trainer nor regbench/small/gpt2 has an option",
        ),
    ],
)
def test_wrong_options_are_named(tmp_path, read_error, options, problem):
    error = read_error(reproduce.main, SMALL, "--output_dir", tmp_path / "out", *options.split())
    assert problem in error and not (tmp_path / "out").exists()
