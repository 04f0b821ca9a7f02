import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import Trainer

from mosaic_lab.programs import reproduce
from mosaic_lab.programs.reproduce import parse
from mosaic_lab.three_moons.experiment import build_optimizer

RECIPES = sorted((Path(__file__).parents[3] / "configuration" / "three_moons").glob("*.yaml"))
SHORT = """
    --length 90 --max_steps 6 --save_steps 3 --eval_steps 3 --logging_steps 2 --per_device_train_batch_size 2
    --num_tracked 3 --num_validation 4 --context_step 4 --disable_tqdm true --use_cpu true
""".split()


def run(folder, *options):
    reproduce.main([str(RECIPES[0]), "--output_dir", str(folder), *SHORT, *options])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Both networks with both optimisers, and two seeds."""
    folder = tmp_path_factory.mktemp("moons")
    run(folder, "--seeds", "0", "1", "--optimizers", "adam", "uncorrected_adam")
    return folder


def test_what_a_run_leaves(finished):
    runs = sorted(path.name for path in finished.iterdir() if path.is_dir())
    assert runs == [
        f"memories{n}-{optimizer}-seed{seed}"
        for n in (1, 3)
        for optimizer in ("adam", "uncorrected_adam")
        for seed in (0, 1)
    ]
    for name in ("tracking.png", "matrices.png", "memories.png", "training.png"):
        assert (finished / name).read_bytes().startswith(b"\x89PNG")
    summary = json.loads((finished / "summary.json").read_text())
    assert len(summary["groups"]) == 4 and len(summary["groups"][1]["purities"]) == 2
    for name in runs:
        assert not list((finished / name).glob("checkpoint-*")) and (finished / name / "config.json").exists()
        with np.load(finished / name / "arrays.npz") as arrays:
            weight = load_file(finished / name / "model.safetensors")["key_proj.weight"]
            assert np.allclose(arrays["w_phi"], torch.view_as_complex(weight).numpy())
            assert arrays["context"].tolist() == list(range(4, 66, 4)) and len(arrays["train_loss"]) == 3
    assert not list(finished.glob("**/*.partial"))


def test_resumed_run_ends_with_the_same_weights(finished, tmp_path, monkeypatch):
    """Stopped after the checkpoint of step 3, as by a power cut."""
    save = Trainer._save_checkpoint

    def stop(trainer, *args, **kwargs):
        save(trainer, *args, **kwargs)
        raise KeyboardInterrupt

    options = ("--seeds", "0", "--num_memories", "3", "--optimizers", "uncorrected_adam")
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_save_checkpoint", stop)
        with pytest.raises(SystemExit) as end:
            run(tmp_path, *options)
    assert end.value.code == 130
    name = "memories3-uncorrected_adam-seed0"
    assert (tmp_path / name / "checkpoint-3").exists() and not (tmp_path / name / "result.json").exists()
    run(tmp_path, *options)
    resumed, straight = (load_file(folder / name / "model.safetensors") for folder in (tmp_path, finished))
    for key, weight in straight.items():
        assert torch.equal(resumed[key], weight)
    results = [json.loads((folder / name / "result.json").read_text()) for folder in (tmp_path, finished)]
    assert results[0]["errors"] == results[1]["errors"] and results[0]["purity"] == results[1]["purity"]


def test_second_call_only_draws(finished, tmp_path, monkeypatch):
    shutil.copytree(finished, tmp_path / "copy")
    monkeypatch.setattr(Trainer, "train", None)
    (tmp_path / "copy" / "tracking.png").unlink()
    run(tmp_path / "copy", "--seeds", "0", "1", "--optimizers", "adam", "uncorrected_adam")
    assert (tmp_path / "copy" / "tracking.png").read_bytes() == (finished / "tracking.png").read_bytes()


def step_by_hand(gradients, rates, beta1, beta2, eps, decay, start):
    """Adam as its authors write it, but for the correction of the bias; decoupled weight decay."""
    weight, mean, square = start, 0.0, 0.0
    for gradient, rate in zip(gradients, rates, strict=True):
        mean = beta1 * mean + (1 - beta1) * gradient
        square = beta2 * square + (1 - beta2) * gradient**2
        weight = weight - rate * mean / (square**0.5 + eps) - decay(rate) * weight
    return weight


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_uncorrected_adam_by_hand(weight_decay):
    """The longer steps are those of Adam without bias correction; decay keeps pace with them."""
    options = dict(learning_rate=0.01, min_learning_rate=1e-3, max_steps=40, optimizer="uncorrected_adam")
    options |= dict(adam_beta1=0.9, adam_beta2=0.99, adam_epsilon=1e-12, weight_decay=weight_decay)
    layer = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    start = float(layer.weight.detach())
    optimizer, scheduler = build_optimizer(layer, options)
    gradients = np.random.default_rng(0).normal(size=40)
    rates, factors = [], []
    for t, gradient in enumerate(gradients):
        layer.weight.grad = torch.full_like(layer.weight, gradient)
        rates.append(0.01 + (1e-3 - 0.01) * t / 40)
        factors.append((1 - 0.9 ** (t + 1)) / (1 - 0.99 ** (t + 1)) ** 0.5)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(rates[-1] * factors[-1])
        optimizer.step()
        scheduler.step()
    by_rate = dict(zip(rates, factors, strict=True))
    expected = step_by_hand(
        gradients, rates, 0.9, 0.99, 1e-12, lambda rate: weight_decay * rate * by_rate[rate], start
    )
    assert float(layer.weight.detach()) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_shipped_recipes(path):
    moons, arguments = parse([str(path)])[1]
    assert len(moons.seeds) == 10 and moons.length == 800 and arguments.max_steps >= 500
    assert type(arguments.learning_rate) is float and "1e-" not in path.read_text()
    assert arguments.output_dir == f"runs/three_moons/{path.stem}"


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ("--periods odd", "invalid choice: 'odd'"),
        ("--num_memories 2", "num_memories must be 1 or 3, not 2"),
        ("--optimizers sgd", "optimizers must be adam or uncorrected_adam, not sgd"),
        ("--seeds 1 1", "seeds must name one or more, each once, not [1, 1]"),
        ("--length 70", "length must be at least 79, not 70"),
        ("--max_steps -1", "max_steps must be at least 1, not -1"),
        ("--context_step 26", "context_step must be at most 25, not 26"),
        ("--context_step 0", "context_step must be at least 1, not 0"),
    ],
)
def test_wrong_options_are_named(tmp_path, read_error, options, problem):
    error = read_error(reproduce.main, RECIPES[0], "--output_dir", tmp_path / "out", *options.split())
    assert problem in error and not (tmp_path / "out").exists()


def test_output_folder_is_checked_before_any_work(tmp_path, read_error):
    (tmp_path / "file").write_text("in the way")
    error = read_error(reproduce.main, RECIPES[0], "--output_dir", tmp_path / "file" / "out")
    assert "file/out" in error and "cannot be written" in error
