"""RegBench: each run trains one model on one number of automata, and tests it."""

from collections.abc import Iterable
from dataclasses import fields
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, Trainer, set_seed

from mosaic_lab.core.errors import InputError
from mosaic_lab.core.files import read_object, write_arrays
from mosaic_lab.core.work import ARRAYS, Experiment, Run, share
from mosaic_lab.regbench.automata import PADDING, VOCAB_SIZE
from mosaic_lab.regbench.data import Sizes, collate, load, longest_sequence
from mosaic_lab.regbench.metrics import measure_all
from mosaic_lab.regbench.ngram import predict_ngram
from mosaic_lab.regbench.options import NGRAMS, RegBenchArguments
from mosaic_lab.regbench.report import write_report
from mosaic_lab.training.model import find_config, read_config
from mosaic_lab.training.one_run import finish, run_options, train, training_seconds
from mosaic_lab.training.options import TrainingArguments

_TRAINER_OPTIONS = {field.name for field in fields(TrainingArguments)}


def plan_runs(benchmark: RegBenchArguments, arguments: TrainingArguments) -> list[Run]:
    """Plans a run for each model, number of automata, choice of hyperparameters and seed.

    Raises:
        InputError: if a model has no config, or one that does not fit.
    """
    data_names = (
        "num_validation",
        "num_test",
        "max_string_length",
        "in_distribution",
        "language_seed",
    )
    data = {name: getattr(benchmark, name) for name in data_names}
    runs = []
    for name, model in benchmark.names.items():
        if name in NGRAMS:
            # Its test automata are the training ones then.
            num_automata = benchmark.num_automata[0] if benchmark.in_distribution else None
            options = {"model": name, "num_automata": num_automata, **data}
            runs.append(Run(name, {**options, "chosen": {}, "seed": None}))
            continue
        for chosen in choices(benchmark.grid.get(name, {})):
            trained, built = split_choice(chosen)
            values = read_values(model, built)
            # What does not fit should fail now, not after hours.
            make_config(values, benchmark.max_string_length)
            learning = {"chosen": chosen, "config": values, **run_options(arguments), **trained}
            for num_automata, seed in product(benchmark.num_automata, benchmark.seeds):
                parts = [name, f"{num_automata}automata", *(f"{k}={v}" for k, v in chosen.items())]
                options = {"model": name, "num_automata": num_automata, "seed": seed, **data}
                runs.append(Run("-".join([*parts, f"seed{seed}"]), options | learning))
    # Small ones first, so that there is something to see.
    return sorted(runs, key=lambda run: run.options["num_automata"] or 0)


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


def make_config(values: dict[str, Any], max_string_length: int) -> PreTrainedConfig:
    """Builds a config with RegBench's vocabulary and, if it has any, positions for the longest sequence.

    Raises:
        InputError: for values that do not fit together.
    """
    try:
        config = AutoConfig.for_model(**values, vocab_size=VOCAB_SIZE, use_cache=False)
    except (ValueError, StrictDataclassError) as error:
        raise InputError(f"{values}: {' '.join(str(error).split())}") from error
    config.bos_token_id = config.eos_token_id = None
    config.pad_token_id = PADDING
    if hasattr(config, "max_position_embeddings"):
        config.max_position_embeddings = longest_sequence(max_string_length)
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


def run_one(
    run: Run, folder: Path, benchmark: RegBenchArguments, arguments: TrainingArguments
) -> dict[str, Any]:
    """Trains one model, takes its best checkpoint by validation loss, and tests it.

    Returns:
        `dict`: `num_parameters`, `validation_loss`, `best_step`, `seconds` (`None` without training),
        `accuracy`, `tvd`; `arrays.npz` in `folder` has these by position and by string.
    """
    options = run.options
    splits = load(
        Sizes(
            # Counting needs none.
            num_train=options["num_automata"] or 1,
            **{name: options[name] for name in ("num_validation", "num_test", "max_string_length")},
            in_distribution=options["in_distribution"],
            seed=options["language_seed"],
        )
    )
    test = splits["test"]
    if options["model"] in NGRAMS:
        predictions = (predict_ngram(row["input_ids"], NGRAMS[options["model"]]) for row in test)
        untrained = dict.fromkeys(("num_parameters", "validation_loss", "best_step", "seconds"))
        return untrained | save_metrics(folder, test, predictions)
    set_seed(options["seed"])
    config = make_config(options["config"], options["max_string_length"])
    changes, _ = split_choice(options["chosen"])
    trainer = train(
        AutoModelForCausalLM.from_config(config),
        arguments,
        folder,
        (splits["train"], splits["validation"]),
        changes | {"seed": options["seed"], "remove_unused_columns": False},
        data_collator=collate,
    )
    result = {
        "num_parameters": trainer.model.num_parameters(),
        "validation_loss": trainer.state.best_metric,
        "best_step": trainer.state.best_global_step,
        "seconds": training_seconds(trainer),
        **save_metrics(folder, test, predict_symbols(trainer, test)),
    }
    finish(trainer, folder)
    return result


def save_metrics(folder: Path, rows: Dataset, predictions: Iterable[np.ndarray]) -> dict[str, float]:
    """Writes all metrics into `folder`; returns accuracy and total variation distance."""
    metrics = measure_all(rows, predictions)
    write_arrays(folder / ARRAYS, metrics)
    return {name: float(metrics[name]) for name in ("accuracy", "tvd")}


def predict_symbols(trainer: Trainer, rows: Dataset) -> np.ndarray:
    """Probabilities of the next token at each position, float32 `(rows, longest, 20)`."""
    logits = trainer.predict(rows).predictions
    # Some models return states as well.
    logits = logits[0] if isinstance(logits, tuple) else logits
    return torch.softmax(torch.from_numpy(logits), -1).numpy()


EXPERIMENT = Experiment(
    description="Trains models to learn languages in context.",
    groups=(RegBenchArguments, TrainingArguments),
    carry_out=share(plan_runs, run_one, write_report),
)
