"""Options of the experiment `comparison`: the models, and one training recipe for all of them."""

import shlex
from dataclasses import dataclass, field
from pathlib import Path

from mosaic_lab.core.bounds import SEED
from mosaic_lab.core.command import check_each_once, check_range


@dataclass
class ComparisonArguments:
    """The models that are compared, and how each is trained."""

    training_recipe: str = field(
        default="",
        metadata={
            "help": "Recipe of `train` for all runs: name of a shipped one, or a path. Options not "
            "listed here are passed on to `train`."
        },
    )
    models: list[str] = field(
        default_factory=list,
        metadata={
            "help": "New models to train: presets in configuration/model, or config JSONs. The last part "
            "of a model's name is that of its runs."
        },
    )
    output_dir: str = field(
        default="", metadata={"help": "Folder for a folder of each run, the table and the curves."}
    )
    seeds: list[int] = field(
        default_factory=lambda: [0], metadata={"help": "Seeds; each model is trained with each."}
    )
    launcher: str = field(
        default="",
        metadata={
            "help": "Command that starts `train`, such as 'accelerate launch --num_processes 8', so that "
            "several devices train each model together; one process each if empty."
        },
    )

    def __post_init__(self):
        for name in ("training_recipe", "output_dir"):
            if not getattr(self, name):
                raise ValueError(f"{name} must be given")
        check_each_once(self, "models", "seeds")
        check_range(self, seeds=SEED)
        if len({Path(model).stem for model in self.models}) != len(self.models):
            raise ValueError(f"models must differ in the last parts of their names, not {self.models}")
        try:
            shlex.split(self.launcher)
        except ValueError as error:
            raise ValueError(f"launcher {self.launcher!r}: {error}") from error
