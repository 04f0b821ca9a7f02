"""Options of the experiment `three_moons`."""

from dataclasses import dataclass, field
from typing import Literal

from mosaic_lab.core.command import check_each_once, check_least
from mosaic_lab.three_moons.orbits import UNITS_PER_SEQUENCE
from mosaic_lab.three_moons.tracking import HORIZON

# torch's Adam, and Adam without correction for the bias of its averages, as in the original's library.
OPTIMIZERS = ("adam", "uncorrected_adam")
# Arrays with the contents and answers of the memories for one sequence.
CONTENTS = ("keys", "values", "recalled")


@dataclass
class MoonsArguments:
    """The networks, the skies that they train on, and the tracking afterwards."""

    periods: Literal["grid", "free"] = field(
        default="grid",
        metadata={
            "help": "The moons' periods: the released grid of half-integers, or random ones in ratios of "
            "small integers, of which some are held out for validation."
        },
    )
    length: int = field(default=800, metadata={"help": "Observations of a sequence."})
    num_memories: list[int] = field(
        default_factory=lambda: [1, 3],
        metadata={"help": "Networks: 1 memory of three complex dimensions, 3 of one, or both."},
    )
    optimizers: list[str] = field(
        default_factory=lambda: [OPTIMIZERS[0]],
        metadata={"help": "adam, uncorrected_adam (the original's), or both."},
    )
    seeds: list[int] = field(
        default_factory=lambda: [0], metadata={"help": "Seeds; each gives a run of each network."}
    )
    min_learning_rate: float = field(
        default=5e-6, metadata={"help": "Learning rate at the end of its linear decay."}
    )
    num_validation: int = field(default=64, metadata={"help": "Sequences of the validation loss."})
    num_tracked: int = field(default=512, metadata={"help": "Sequences that are tracked after training."})
    context_step: int = field(
        default=5, metadata={"help": "Observations between two points of the tracking error."}
    )

    def __post_init__(self):
        # The shortest period is then still more than an observation.
        check_least(self, length=3 * UNITS_PER_SEQUENCE + HORIZON, min_learning_rate=0, seeds=0)
        check_least(self, num_validation=1, num_tracked=1, context_step=1)
        if self.context_step > HORIZON:
            raise ValueError(f"context_step must be at most {HORIZON}, not {self.context_step}")
        allowed = {"num_memories": (1, 3), "optimizers": OPTIMIZERS}
        for name, values in allowed.items():
            for value in getattr(self, name):
                if value not in values:
                    raise ValueError(f"{name} must be {' or '.join(map(str, values))}, not {value}")
        check_each_once(self, "num_memories", "optimizers", "seeds")
