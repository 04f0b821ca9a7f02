"""The options of `run_comparison.py`: a set of models, and one training recipe for all of them."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mosaic_lab.core.command import CommandParser
from mosaic_lab.core.errors import InputError


@dataclass
class ComparisonArguments:
    """Who is compared, and how each is trained."""

    training_recipe: str = field(
        default="",
        metadata={
            "help": "Recipe of train.py for all runs. Options not listed here are passed on to train.py."
        },
    )
    models: list[str] = field(
        default_factory=list,
        metadata={"help": "New models to train: presets in configuration/model, or config JSONs."},
    )
    output_dir: str = field(
        default="", metadata={"help": "Folder for a folder of each run, the table and the curves."}
    )
    seeds: list[int] = field(
        default_factory=lambda: [0], metadata={"help": "Each model is trained with each."}
    )
    launcher: str = field(
        default="",
        metadata={
            "help": "What starts train.py, such as 'accelerate launch --num_processes 8', so that several "
            "devices train each model together; one process each if empty."
        },
    )

    def __post_init__(self):
        for name in ("training_recipe", "output_dir"):
            if not getattr(self, name):
                raise ValueError(f"{name} must be given")
        for name in ("models", "seeds"):
            value = getattr(self, name)
            if len(set(value)) != len(value) or not value:
                raise ValueError(f"{name} must name one or more, each once, not {value}")
        stems = [Path(model).stem for model in self.models]
        if len(set(stems)) != len(stems):
            raise ValueError(f"models must differ in their files' names, which name the runs: {self.models}")
        try:
            shlex.split(self.launcher)
        except ValueError as error:
            raise ValueError(f"launcher {self.launcher!r}: {error}") from error


def parse_comparison(argv: Sequence[str]) -> tuple[ComparisonArguments, list[str]]:
    """The options of the comparison in the set that `argv` names, and those for `train.py` that follow it.

    Raises:
        InputError: for an unreadable set, or a value of the wrong type or range.
    """
    parser = CommandParser(
        ComparisonArguments,
        description="Trains models alike, and compares their losses.",
        recipes="comparison",
    )
    comparison, _, passed_on = parser.parse_known(argv)
    for reserved in ("--model", "--seed", "--resume_from_checkpoint"):
        if any(option.split("=")[0] == reserved for option in passed_on):
            raise InputError(f"{reserved} is what the runs of a comparison differ in; set models and seeds")
    return comparison, passed_on
