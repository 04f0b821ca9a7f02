"""Options of the experiment `regbench`."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mosaic_lab.core.bounds import SEED
from mosaic_lab.core.command import check_each_once, check_range
from mosaic_lab.regbench.data import LONGEST_STRING, MOST_SEQUENCES

NGRAMS = {"1-gram": 1, "2-gram": 2, "3-gram": 3}


@dataclass
class RegBenchArguments:
    """The languages, the models that learn to learn them, and their hyperparameters."""

    models: list[str] = field(
        default_factory=lambda: ["regbench/small/mosaic", "regbench/small/gpt2"],
        metadata={
            "help": "Presets in configuration/model, or config JSONs, of any causal models; 1-gram, 2-gram, "
            "and 3-gram only count. A model is called by the last part of its name."
        },
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
            "help": "Values to try, of a model's config or the Trainer's options: {model: {name: "
            "[value, ...]}}. A value that is itself {name: value, ...} sets several at once. All "
            "combinations run, and the one with the lowest validation loss counts."
        },
    )

    def __post_init__(self):
        sequences = (1, MOST_SEQUENCES)
        check_range(self, num_automata=sequences, num_validation=sequences, num_test=sequences)
        check_range(self, max_string_length=(1, LONGEST_STRING), language_seed=SEED, seeds=SEED)
        check_each_once(self, "models", "num_automata", "seeds")
        if len(set(self.names)) != len(self.models):
            raise ValueError(f"models must differ in the last parts of their names, not {self.models}")
        self.grid = self._parse_grid()

    @property
    def names(self) -> dict[str, str]:
        """The models by their short names."""
        return {Path(model).stem: model for model in self.models}

    def _parse_grid(self) -> dict[str, dict[str, list[Any]]]:
        try:
            grid = json.loads(self.grid)
        except json.JSONDecodeError as error:
            raise ValueError(f"grid must be JSON, not {self.grid!r}: {error}") from error
        if not isinstance(grid, dict):
            raise ValueError(f"grid must be {{model: {{name: [value, ...]}}}}, not {self.grid}")
        for model, axes in grid.items():
            if not isinstance(axes, dict) or not all(
                isinstance(values, list) and values for values in axes.values()
            ):
                raise ValueError(f"grid: {model} must have {{name: [value, ...]}}, not {axes}")
            if model not in self.names or model in NGRAMS:
                raise ValueError(f"grid: {model} is none of the models to train, {', '.join(self.names)}")
        return grid


@dataclass
class LanguageArguments:
    """RegBench's test languages, for experiments with models that are trained already."""

    max_string_length: int = field(
        default=11, metadata={"help": "Longest string, as in the training of the models."}
    )
    language_seed: int = field(default=0, metadata={"help": "Seed of the languages, as in training."})

    def __post_init__(self):
        check_range(self, max_string_length=(1, LONGEST_STRING), language_seed=SEED)
