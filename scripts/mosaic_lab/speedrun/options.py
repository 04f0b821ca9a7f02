"""Options of the experiment `speedrun`: recipes, and the loss that they have to reach."""

from dataclasses import dataclass, field

from mosaic_lab.core.bounds import SEED
from mosaic_lab.core.command import check_each_once, check_range


@dataclass
class SpeedrunArguments:
    """The recipes that race, the target, and the folder of the report."""

    recipes: list[str] = field(
        default_factory=list,
        metadata={"help": "Recipes of `train`, names or paths; times are shares of the first one's."},
    )
    target: float = field(
        default=0.0, metadata={"help": "Bits per byte of the held-out stories to be reached at the end."}
    )
    output_dir: str = field(default="", metadata={"help": "Folder for the table and a folder of each run."})
    seeds: list[int] = field(
        default_factory=lambda: [0], metadata={"help": "Seeds; all recipes run with one before the next."}
    )

    def __post_init__(self):
        if not self.output_dir:
            raise ValueError("output_dir must be given")
        if not self.target > 0:
            raise ValueError(f"target must be above 0 bits per byte, not {self.target}")
        check_each_once(self, "recipes", "seeds")
        check_range(self, seeds=SEED)
