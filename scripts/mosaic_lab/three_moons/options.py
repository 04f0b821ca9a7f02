"""The options of `run_three_moons.py`."""

from dataclasses import dataclass, field
from typing import Literal

from mosaic_lab.three_moons.orbits import UNITS_A_SEQUENCE
from mosaic_lab.three_moons.tracking import HORIZON

# As torch has it, and without correction for the bias of its averages, as in the original's library.
OPTIMIZERS = ("adam", "uncorrected_adam")


@dataclass
class MoonsArguments:
    """What is trained, on which skies, and how it is looked at."""

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
        metadata={"help": "adam, uncorrected_adam, with which the original was trained, or both."},
    )
    seeds: list[int] = field(
        default_factory=lambda: [0], metadata={"help": "A run of each network for each."}
    )
    min_learning_rate: float = field(
        default=5e-6, metadata={"help": "Where the linear decay of the learning rate ends."}
    )
    num_validation: int = field(default=64, metadata={"help": "Sequences of the validation loss."})
    num_tracked: int = field(default=512, metadata={"help": "Sequences that are tracked after training."})
    context_step: int = field(
        default=5, metadata={"help": "Observations between two points of the tracking error."}
    )

    def __post_init__(self):
        least = {"num_validation": 1, "num_tracked": 1, "context_step": 1, "seeds": 0}
        # The shortest period is then still more than an observation.
        least |= {"length": 3 * UNITS_A_SEQUENCE + HORIZON, "min_learning_rate": 0}
        for name, bound in least.items():
            value = getattr(self, name)
            if min(value if isinstance(value, list) else [value], default=bound) < bound:
                raise ValueError(f"{name} must be at least {bound}, not {value}")
        if self.context_step > HORIZON:
            raise ValueError(f"context_step must be at most {HORIZON}, not {self.context_step}")
        allowed = {"num_memories": (1, 3), "optimizers": OPTIMIZERS}
        for name, values in allowed.items():
            for value in getattr(self, name):
                if value not in values:
                    raise ValueError(f"{name} must be {' or '.join(map(str, values))}, not {value}")
        for name in ("num_memories", "optimizers", "seeds"):
            if len(set(getattr(self, name))) < max(1, len(getattr(self, name))):
                raise ValueError(f"{name} must name one or more, each once, not {getattr(self, name)}")
