"""Comparison: each run is `train` with one recipe, for one model and seed."""

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from mosaic_lab.comparison.options import ComparisonArguments
from mosaic_lab.comparison.report import write_report
from mosaic_lab.core.command import CommandParser, find_recipe, load_recipe
from mosaic_lab.core.errors import InputError
from mosaic_lab.core.files import read_object, write_arrays
from mosaic_lab.core.fingerprint import hash_texts
from mosaic_lab.core.work import ARRAYS, Experiment, Run, share
from mosaic_lab.training.corpus import load_stories
from mosaic_lab.training.model import read_config
from mosaic_lab.training.options import TRAIN, DataArguments, ModelArguments, TrainingArguments
from mosaic_lab.training.report import CURVE_DATA, RESULTS
from mosaic_lab.training.trainer import last_checkpoint

# Options of `train` in which the runs of a comparison differ.
RESERVED = ("--model", "--seed", "--resume_from_checkpoint")


def plan_runs(comparison: ComparisonArguments, passed_on: list[str]) -> list[Run]:
    """Plans a run for each seed and model, all models with the first seed first.

    Raises:
        InputError: for options that `train` would refuse.
    """
    for name in RESERVED:
        if any(option.split("=")[0] == name for option in passed_on):
            raise InputError(f"{name} tells the runs of a comparison apart; set models and seeds")
    runs = []
    for seed in comparison.seeds:
        for model in comparison.models:
            config = read_config(model)
            name = f"{Path(model).stem}-seed{seed}"
            arguments = train_arguments(comparison, passed_on, model, seed, name)
            options = {
                "model": Path(model).stem,
                "seed": seed,
                "config": config.to_diff_dict(),
                "recipe": load_recipe(find_recipe(comparison.training_recipe, "train")),
                "options": passed_on,
            }
            runs.append(Run(name, options, inputs=(model, check_training(arguments))))
    return runs


def train_arguments(
    comparison: ComparisonArguments, passed_on: list[str], model: str, seed: int, folder: str
) -> list[str]:
    """Arguments of `train` for one run."""
    run = ["--model", model, "--seed", str(seed), "--output_dir", folder]
    return [comparison.training_recipe, *passed_on, *run]


def check_training(arguments: list[str]) -> DataArguments:
    """Checks the arguments of `train` now, not after hours; returns the options of the data.

    Raises:
        InputError: for arguments that `train` would refuse, or that leave no losses to compare.
    """
    parser = CommandParser(ModelArguments, DataArguments, TrainingArguments, description="", recipes="train")
    _, data, training, _ = parser.parse(arguments)
    for name in ("logging_strategy", "eval_strategy"):
        if getattr(training, name) == "no":
            raise InputError(f"{name} no: a comparison needs the losses of training and validation")
    if 0 < training.max_steps < training.logging_steps:
        raise InputError(
            f"logging_steps must be at most max_steps, {training.max_steps}, not {training.logging_steps}"
        )
    return data


def run_one(run: Run, folder: Path, comparison: ComparisonArguments, passed_on: list[str]) -> dict[str, Any]:
    """Trains one model in a process of its own, from its last checkpoint if there is one.

    Returns:
        `dict`: `model_type`, `num_layers`, `num_parameters`, `train_loss` and `validation_loss` (the last
        ones), `bigram_loss`, `seconds` and `corpus`; the curves are `arrays.npz` in `folder`.

    Raises:
        InputError: if training fails; it has said why.
    """
    model, data = run.inputs
    command = [*(shlex.split(comparison.launcher) or [sys.executable]), *TRAIN]
    command += train_arguments(comparison, passed_on, model, run.options["seed"], str(folder))
    if last_checkpoint(folder):
        command.append("--resume_from_checkpoint")
    try:
        status = subprocess.run(command).returncode
    except OSError as error:
        raise InputError(f"launcher {comparison.launcher!r}: {error.strerror}") from error
    if status != 0:
        raise InputError(f"{run.name}: train ended with status {status}")
    results, curve = read_object(folder / RESULTS), read_object(folder / CURVE_DATA)
    config = read_config(str(folder / "config.json"))
    arrays = {"tokens_per_step": np.array(curve["tokens_per_step"])}
    for split in ("train", "validation"):
        arrays |= {f"{split}_{axis}": np.array(curve[split][axis]) for axis in ("step", "loss")}
    write_arrays(folder / ARRAYS, arrays)
    return {
        "model_type": config.model_type,
        "num_layers": config.num_hidden_layers,
        "num_parameters": results["num_parameters"],
        "train_loss": curve["train"]["loss"][-1],
        "validation_loss": curve["validation"]["loss"][-1],
        "bigram_loss": curve["bigram_loss"],
        "seconds": results["seconds"],
        "corpus": None if data.streaming else describe_corpus(data),
    }


def describe_corpus(data: DataArguments) -> dict[str, Any]:
    """Name, sizes and fingerprint of a corpus, so that others can tell whether they have the same.

    Returns:
        `dict`: `dataset`; `num_train` and `num_validation` stories; `sha256` of all of them in this order,
        see `hash_texts`.
    """
    splits = [split for split in load_stories(data) if split is not None]
    sizes = [*map(len, splits), 0]
    stories = (story for split in splits for batch in split.iter(1000) for story in batch["text"])
    return {
        "dataset": "/".join(Path(data.dataset).parts[-2:]),
        "num_train": sizes[0],
        "num_validation": sizes[1],
        "sha256": hash_texts(stories),
    }


EXPERIMENT = Experiment(
    description="Trains models alike, and compares their losses.",
    groups=(ComparisonArguments,),
    carry_out=share(plan_runs, run_one, write_report),
    passes_on=True,
)
