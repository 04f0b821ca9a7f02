"""The options of `run_regbench.py`."""

import json
from dataclasses import dataclass, field
from typing import Any

NGRAMS = {"1-gram": 1, "2-gram": 2, "3-gram": 3}


@dataclass
class RegBenchArguments:
    """Which languages, who learns to learn them, and with which hyperparameters."""

    contestants: list[str] = field(
        default_factory=lambda: ["mosaic", "gpt2"],
        metadata={
            "help": "Names of config JSONs in `models`; 1-gram, 2-gram and 3-gram only count and need none."
        },
    )
    models: str = field(
        default="configuration/regbench/small",
        metadata={"help": "Folder with a config JSON for each contestant, of any causal model."},
    )
    num_automata: list[int] = field(
        default_factory=lambda: [1000],
        metadata={"help": "Numbers of training automata, with a sequence each."},
    )
    num_validation: int = field(default=500, metadata={"help": "Validation automata."})
    num_test: int = field(default=500, metadata={"help": "Test automata."})
    max_string_length: int = field(
        default=49, metadata={"help": "Longest string; RegBench has 1 to 49 symbols in each."}
    )
    in_distribution: bool = field(
        default=False, metadata={"help": "Validation and test draw new sequences from the training automata."}
    )
    language_seed: int = field(default=0, metadata={"help": "Seed of automata and sequences."})
    seeds: list[int] = field(default_factory=lambda: [0], metadata={"help": "Seeds of the models."})
    grid: str = field(
        default="{}",
        metadata={
            "help": "Values to try, of a contestant's config or the Trainer's options: {contestant: {name: "
            "[value, ...]}}. A value that is itself {name: value, ...} sets several at once. All "
            "combinations run, and the one with the lowest validation loss counts."
        },
    )

    def __post_init__(self):
        least = {"num_automata": 1, "num_validation": 1, "num_test": 1, "max_string_length": 1}
        for name, bound in (least | {"language_seed": 0, "seeds": 0}).items():
            value = getattr(self, name)
            if min(value if isinstance(value, list) else [value], default=bound - 1) < bound:
                raise ValueError(f"{name} must be at least {bound}, not {value}")
        for name in ("contestants", "num_automata", "seeds"):
            value = getattr(self, name)
            if len(set(value)) != len(value) or not value:
                raise ValueError(f"{name} must name one or more, each once, not {value}")
        self.grid = self._parse_grid()

    def _parse_grid(self) -> dict[str, dict[str, list[Any]]]:
        try:
            grid = json.loads(self.grid)
        except json.JSONDecodeError as error:
            raise ValueError(f"grid must be JSON, not {self.grid!r}: {error}") from error
        if not isinstance(grid, dict):
            raise ValueError(f"grid must be {{contestant: {{name: [value, ...]}}}}, not {self.grid}")
        for contestant, axes in grid.items():
            if not isinstance(axes, dict) or not all(
                isinstance(values, list) and values for values in axes.values()
            ):
                raise ValueError(f"grid: {contestant} must have {{name: [value, ...]}}, not {axes}")
        return grid
