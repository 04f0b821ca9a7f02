"""The runs of a comparison: `train.py` with one recipe, for each model and seed."""

import shlex
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from filelock import FileLock

from mosaic_lab.comparison.options import ComparisonArguments
from mosaic_lab.comparison.report import write_report
from mosaic_lab.core.command import CommandParser
from mosaic_lab.core.errors import InputError
from mosaic_lab.core.files import read_json, write_arrays
from mosaic_lab.core.work import ARRAYS, Point, leave_group, work_through
from mosaic_lab.training.model import read_config
from mosaic_lab.training.options import DataArguments, ModelArguments, TrainingArguments
from mosaic_lab.training.report import CURVE_DATA, RESULTS
from mosaic_lab.training.trainer import last_checkpoint

TRAIN = ["-m", "mosaic_lab.programs.train"]


def compare(comparison: ComparisonArguments, passed_on: list[str]) -> None:
    """Does what is left of the runs; once there is nothing left, reports.

    Raises:
        InputError: for options that `train.py` would refuse, or if one of the runs fails.
    """
    leave_group()
    points = plan_points(comparison, passed_on)
    folder = Path(comparison.output_dir)
    results = work_through(points, folder, partial(run_point, comparison=comparison, passed_on=passed_on))
    if None in results:
        print(f"{results.count(None)} runs are left to other processes; the last one of them reports")
        return
    # Two processes may both find that all is done.
    with FileLock(folder / "lock"):
        print(f"\n{write_report(folder, results)}")


def plan_points(comparison: ComparisonArguments, passed_on: list[str]) -> list[Point]:
    """A run for each seed and model, all models with the first seed first."""
    points = []
    for seed in comparison.seeds:
        for model in comparison.models:
            name = f"{Path(model).stem}-seed{seed}"
            config = read_config(model)
            # What does not fit should fail now, not after hours.
            _training_parser().parse(train_arguments(comparison, passed_on, model, seed, name))
            options = {
                "model": Path(model).stem,
                "seed": seed,
                "config": config.to_diff_dict(),
                "recipe": yaml.safe_load(Path(comparison.training_recipe).read_text(encoding="utf-8")),
                "options": passed_on,
            }
            points.append(Point(name, options))
    return points


def _training_parser() -> CommandParser:
    return CommandParser(ModelArguments, DataArguments, TrainingArguments, description="", recipes="train")


def train_arguments(
    comparison: ComparisonArguments, passed_on: list[str], model: str, seed: int, folder: str
) -> list[str]:
    """What `train.py` is called with."""
    run = ["--model", model, "--seed", str(seed), "--output_dir", folder]
    return [comparison.training_recipe, *passed_on, *run]


def run_point(
    point: Point, folder: Path, comparison: ComparisonArguments, passed_on: list[str]
) -> dict[str, Any]:
    """Trains one model in a process of its own, from its last checkpoint if there is one.

    Returns:
        `dict`: `model_type`, `num_layers`, `num_parameters`, `train_loss` and `validation_loss` (the last
        ones), `seconds`; the curves are `arrays.npz` in `folder`.

    Raises:
        InputError: if `train.py` fails; it has said why.
    """
    model = next(model for model in comparison.models if Path(model).stem == point.options["model"])
    seed = point.options["seed"]
    command = [*(shlex.split(comparison.launcher) or [sys.executable]), *TRAIN]
    command += train_arguments(comparison, passed_on, model, seed, str(folder))
    if last_checkpoint(folder):
        command.append("--resume_from_checkpoint")
    try:
        status = subprocess.run(command).returncode
    except OSError as error:
        raise InputError(f"launcher {comparison.launcher!r}: {error.strerror}") from error
    if status != 0:
        raise InputError(f"{point.name}: train.py ended with status {status}")
    results, curve = read_json(folder / RESULTS), read_json(folder / CURVE_DATA)
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
    }
