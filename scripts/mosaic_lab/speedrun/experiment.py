"""Speedrun: each run is `train` with a recipe of its own, timed up to a loss that all have to reach."""

import subprocess
import sys
from pathlib import Path
from typing import Any

from mosaic_lab.core.command import CommandParser, find_recipe, load_recipe
from mosaic_lab.core.errors import InputError
from mosaic_lab.core.files import read_object
from mosaic_lab.core.work import Experiment, Run, share
from mosaic_lab.speedrun.options import SpeedrunArguments
from mosaic_lab.speedrun.report import write_report
from mosaic_lab.training.options import TRAIN, DataArguments, ModelArguments, TrainingArguments
from mosaic_lab.training.report import CURVE_DATA, RESULTS

# What decides which stories are held out.
SAME_STORIES = ("dataset", "num_stories", "corpus_seed", "validation_fraction")


def plan_runs(speedrun: SpeedrunArguments) -> list[Run]:
    """Plans a run for each seed and recipe.

    Raises:
        InputError: for recipes that `train` would refuse, or that hold out other stories than the first.
    """
    runs, first = [], None
    for seed in speedrun.seeds:
        for recipe in speedrun.recipes:
            data = _read(recipe)
            first = first or data
            for name in SAME_STORIES:
                ours, theirs = getattr(data, name), getattr(first, name)
                if ours != theirs:
                    raise InputError(f"recipe {recipe}: {name} must be {theirs}, not {ours}")
            options = {
                "recipe": Path(recipe).stem,
                "seed": seed,
                "target": speedrun.target,
                "options": load_recipe(find_recipe(recipe, "train")),
            }
            runs.append(Run(f"{Path(recipe).stem}-seed{seed}", options, inputs=recipe))
    return runs


def _read(recipe: str) -> DataArguments:
    parser = CommandParser(ModelArguments, DataArguments, TrainingArguments, description="", recipes="train")
    _, data, _, _ = parser.parse([recipe, "--output_dir", recipe])
    return data


def run_one(run: Run, folder: Path, *_: Any) -> dict[str, Any]:
    """Trains in a process of its own, and validates once, at the end and out of time.

    Returns:
        `dict`: `model`, `num_parameters`, `steps`, `tokens`, `seconds` of training, and on the held-out
        stories `loss`, in nats per token, and `bits_per_byte`.

    Raises:
        InputError: if training fails, which has said why, or if the bytes of the tokens are not known.
    """
    options = ["--seed", str(run.options["seed"]), "--eval_strategy", "no", "--save_strategy", "no"]
    status = subprocess.run(
        [sys.executable, *TRAIN, run.inputs, *options, "--output_dir", str(folder)]
    ).returncode
    if status != 0:
        raise InputError(f"{run.name}: train ended with status {status}")
    results, curve = read_object(folder / RESULTS), read_object(folder / CURVE_DATA)
    validation = curve["validation"]
    if not validation.get("bits_per_byte"):
        raise InputError(f"{run.name}: its loss is not known in bits per byte (see docs/training.md)")
    return {
        "model": results["model"],
        "num_parameters": results["num_parameters"],
        "steps": results["steps"],
        "tokens": results["steps"] * curve["tokens_per_step"],
        "seconds": results["seconds"],
        "loss": validation["loss"][-1],
        "bits_per_byte": validation["bits_per_byte"][-1],
    }


EXPERIMENT = Experiment(
    description="Times recipes of training up to a loss on held-out stories.",
    groups=(SpeedrunArguments,),
    carry_out=share(plan_runs, run_one, write_report),
)
