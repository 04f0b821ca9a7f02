from pathlib import Path

import pytest
import torch

from mosaic_lab.core.errors import InputError
from mosaic_lab.programs.train import make_parser
from mosaic_lab.training.options import (
    LEARNING,
    LENGTHS,
    SELECTING,
    TrainingArguments,
    check_processes,
    learning_options,
)

RECIPES = sorted((Path(__file__).parents[3] / "configuration" / "train").glob("*.yaml"))


@pytest.fixture
def parse(tmp_path):
    def run(text, *argv):
        path = tmp_path / "recipe.yaml"
        path.write_text(text)
        return make_parser().parse([str(path), *argv])[:3]

    return run


def test_the_command_line_overrides_the_recipe(parse):
    recipe = (
        "output_dir: a\nblock_size: 32\nlearning_rate: 1e-3\nmax_steps: -1\nsave_strategy: no\nmodel: null\n"
    )
    model, data, training = parse(
        recipe, "--block_size", "64", "--logging_first_step", "--train_tokenizer=300"
    )
    assert (data.block_size, training.max_steps, training.output_dir) == (64, -1, "a")
    assert training.learning_rate == 0.001
    assert training.save_strategy == "no"
    assert training.logging_first_step is True and model.train_tokenizer == 300
    assert model.model == "mosaic-tiny"


def test_structured_values(parse):
    recipe = """
        output_dir: a
        lr_scheduler_type: cosine_with_min_lr
        lr_scheduler_kwargs: {min_lr: 1.0e-4}
        include_for_metrics: [inputs, loss]
    """
    _, _, training = parse(recipe)
    assert training.lr_scheduler_kwargs == {"min_lr": 0.0001}
    assert training.include_for_metrics == ["inputs", "loss"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("learning_rat: 0.1", "unknown option 'learning_rat'; did you mean 'learning_rate'?"),
        ("no_bf16: true", "unknown option 'no_bf16'"),
        ("block_size: 3.5", "block_size: invalid int value: '3.5'"),
        ("block_size: [8, 9]", "block_size: invalid int value"),
        ("learning_rate: fast", "learning_rate: invalid float value: 'fast'"),
        ("learning_rate: true", "learning_rate: invalid float value: 'True'"),
        ("bf16: maybe", "bf16"),
        ("block_size: 1", "block_size must be at least 2, not 1"),
        ("validation_fraction: 1.0", "validation_fraction must lie in [0, 1), not 1.0"),
        ("num_stories: 0", "num_stories must be at least 1, not 0"),
        ("train_tokenizer: 256", "train_tokenizer must be at least 257"),
        ("save_strategy: sometimes", "sometimes"),
        ("- a list", "a recipe is made of lines"),
        ("a: b: c", "not YAML"),
        ("", "a recipe is made of lines"),
    ],
)
def test_wrong_lines_are_named(parse, line, problem):
    with pytest.raises(InputError) as error:
        parse(line, "--output_dir", "a")
    assert problem in str(error.value) and "\n" not in str(error.value)


def test_missing_recipe(tmp_path):
    with pytest.raises(InputError, match="none.yaml: there is no such file.*shipped recipes: .*demo"):
        make_parser().parse([str(tmp_path / "none.yaml")])


def test_unknown_option_on_the_command_line(parse):
    with pytest.raises(InputError, match="--learning_rat"):
        parse("output_dir: a", "--learning_rat", "1")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_shipped_recipes(path):
    """Every recipe passes the real parser, names a model that is there, and writes its numbers as numbers."""
    model, data, training = make_parser().parse([str(path)])[:3]
    preset = path.parents[1] / "model" / f"{model.model}.json"
    assert preset.exists() or (path.parents[2] / model.model).exists()
    for name in ("learning_rate", "weight_decay", "adam_beta2", "max_grad_norm"):
        assert type(getattr(training, name)) is float, name
    for name in ("max_steps", "per_device_train_batch_size", "seed"):
        assert type(getattr(training, name)) is int, name
    assert type(data.block_size) is int and 0 < training.learning_rate < 0.1
    assert training.max_steps > 0 and training.output_dir.startswith("runs/")
    assert "1e-" not in path.read_text()


def test_learning_options_are_the_trainers():
    options = TrainingArguments("out", load_best_model_at_end=True, eval_strategy="steps").to_dict()
    assert set(LEARNING) | set(SELECTING) | set(LENGTHS) <= set(options)
    assert "eval_steps" in learning_options(
        TrainingArguments("out", load_best_model_at_end=True, eval_strategy="steps", save_steps=500)
    )
    assert "eval_steps" not in learning_options(TrainingArguments("out"))


def test_processes_for_gpus_without_a_gpu(monkeypatch):
    """As `accelerate launch` with ddp.yaml starts them; the first one says so, the others are silent."""
    arguments = TrainingArguments("out", use_cpu=True)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.setenv("WORLD_SIZE", "8")
    with pytest.raises(InputError, match="use_cpu must be true: 8 processes"):
        check_processes(arguments)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "False")
    with pytest.raises(InputError, match="8 processes have been started for as many GPUs"):
        check_processes(arguments)
    monkeypatch.setenv("RANK", "3")
    with pytest.raises(SystemExit) as stop:
        check_processes(arguments)
    assert stop.value.code == 2


def test_only_losses_are_measured():
    measured = {
        "load_best_model_at_end": True,
        "eval_strategy": "steps",
        "metric_for_best_model": "eval_loss",
    }
    TrainingArguments("out", **measured)
    with pytest.raises(ValueError, match="metric_for_best_model must be loss, not accuracy"):
        TrainingArguments("out", **measured | {"metric_for_best_model": "accuracy"})
