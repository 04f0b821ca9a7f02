"""Models that are trained alike and compared: their configs, a grid of hyperparameters, and seeds."""

import json
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field, fields
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, PreTrainedConfig

from mosaic_lab.core.bounds import SEED
from mosaic_lab.core.command import check_each_once, check_range
from mosaic_lab.core.errors import InputError
from mosaic_lab.core.files import read_object
from mosaic_lab.training.model import find_config, read_config
from mosaic_lab.training.one_run import run_options
from mosaic_lab.training.options import TrainingArguments

_TRAINER_OPTIONS = {field.name for field in fields(TrainingArguments)}

Result = dict[str, Any]


@dataclass
class ContestantArguments:
    """The models, their hyperparameters, and the seeds."""

    models: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Presets in configuration/model, or config JSONs, of any causal models. A model is "
            "called by the last part of its name."
        },
    )
    seeds: list[int] = field(default_factory=lambda: [0], metadata={"help": "Seeds of the models."})
    grid: str = field(
        default="{}",
        metadata={
            "help": "Values to try, of a model's config or the Trainer's options: {model: {name: "
            "[value, ...]}}. A value that is itself {name: value, ...} sets several at once. All "
            "combinations run, and the one with the lowest validation loss counts."
        },
    )

    # Models that are not trained, by their short names.
    untrained = frozenset()

    def __post_init__(self):
        check_range(self, seeds=SEED)
        check_each_once(self, "models", "seeds")
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
            if model not in self.names or model in self.untrained:
                raise ValueError(f"grid: {model} is none of the models to train, {', '.join(self.names)}")
        return grid


def list_contestants(
    contestants: ContestantArguments,
    arguments: TrainingArguments,
    check: Callable[[dict[str, Any]], PreTrainedConfig],
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Lists the models to train with each choice of hyperparameters.

    Args:
        contestants (`ContestantArguments`): the models and the grid.
        arguments (`TrainingArguments`): those of the recipe.
        check (`Callable`): builds a config from values; what does not fit should fail now, not after hours.

    Yields:
        `tuple[str, dict]`: the model's short name, and what its runs have in common: `chosen`, the values of
        its `config`, and the Trainer's options.

    Raises:
        InputError: if a model has no config, or one that does not fit.
    """
    for name, model in contestants.names.items():
        if name in contestants.untrained:
            continue
        for chosen in choices(contestants.grid.get(name, {})):
            trained, built = split_choice(chosen)
            values = read_values(model, built)
            check(values)
            yield name, {"chosen": chosen, "config": values, **run_options(arguments), **trained}


def choices(axes: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """Combines the values of all axes; values that are dictionaries set several names."""
    return [
        {
            name: value
            for axis, value in zip(axes, values, strict=True)
            for name, value in (value if isinstance(value, dict) else {axis: value}).items()
        }
        for values in product(*axes.values())
    ]


def split_choice(chosen: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Splits a choice into the options of the Trainer and those of the config."""
    trained = {name: value for name, value in chosen.items() if name in _TRAINER_OPTIONS}
    return trained, {name: value for name, value in chosen.items() if name not in trained}


def describe_choice(chosen: dict[str, Any]) -> list[str]:
    """A choice as parts of a run's name."""
    return [f"{name}={value}" for name, value in chosen.items()]


def make_config(
    values: dict[str, Any], vocab_size: int, longest: int, pad_token_id: int | None = None
) -> PreTrainedConfig:
    """Builds a config with a task's vocabulary and, if it has any, positions for its longest rows.

    Raises:
        InputError: for values that do not fit together.
    """
    tokens = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": pad_token_id}
    try:
        config = AutoConfig.for_model(**(values | tokens), vocab_size=vocab_size, use_cache=False)
    except (ValueError, StrictDataclassError) as error:
        raise InputError(f"{values}: {' '.join(str(error).split())}") from error
    if hasattr(config, "max_position_embeddings"):
        config.max_position_embeddings = longest
    return config


def read_values(model: str, changes: dict[str, Any]) -> dict[str, Any]:
    """Reads the config JSON of a preset or a path, and makes `changes`.

    Raises:
        InputError: if there is no such file, or if it has no place for a change.
    """
    config = read_config(model)
    for name in changes:
        if not hasattr(config, name):
            raise InputError(f"grid: neither the Trainer nor {model} has an option {name!r}")
    return read_object(find_config(model)) | changes


def choose_best(results: list[Result], key: Callable[[Result], Hashable]) -> dict[Hashable, list[Result]]:
    """Chooses the hyperparameters with the lowest validation loss, a mean over the seeds.

    Args:
        results (`list[dict]`): of all runs; those that are not trained have no validation loss.
        key (`Callable`): what hyperparameters are chosen for: the model, say.

    Returns:
        `dict`: for each key the results of the chosen runs, which differ in their seeds.
    """
    groups: dict[Hashable, dict[str, list[Result]]] = {}
    for result in results:
        groups.setdefault(key(result), {}).setdefault(json.dumps(result["chosen"]), []).append(result)
    return {name: min(chosen.values(), key=_mean_loss) for name, chosen in groups.items()}


def _mean_loss(results: list[Result]) -> float:
    losses = [result["validation_loss"] for result in results]
    return 0.0 if None in losses else float(np.mean(losses))


def format_values(values: list[float], digits: int = 3) -> str:
    """The mean, and where there are several values, half of what is between the least and the largest."""
    text = f"{np.mean(values):.{digits}f}"
    return text if len(values) == 1 else f"{text} ± {np.ptp(values) / 2:.{digits}f}"
