"""RegBench: each run trains one model on one number of automata, and tests it."""

from collections.abc import Iterable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, PreTrainedConfig, Trainer, set_seed

from mosaic_lab.core.files import write_arrays
from mosaic_lab.core.work import ARRAYS, Experiment, Run, share
from mosaic_lab.regbench.automata import PADDING, VOCAB_SIZE
from mosaic_lab.regbench.data import Sizes, collate, load, longest_sequence
from mosaic_lab.regbench.metrics import measure_all
from mosaic_lab.regbench.ngram import predict_ngram
from mosaic_lab.regbench.options import NGRAMS, RegBenchArguments
from mosaic_lab.regbench.report import write_report
from mosaic_lab.training.contestants import describe_choice, list_contestants, make_config, split_choice
from mosaic_lab.training.one_run import finish, train
from mosaic_lab.training.options import TrainingArguments


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
    for name in (name for name in benchmark.names if name in NGRAMS):
        # Its test automata are the training ones then.
        num_automata = benchmark.num_automata[0] if benchmark.in_distribution else None
        options = {"model": name, "num_automata": num_automata, **data}
        runs.append(Run(name, {**options, "chosen": {}, "seed": None}))
    check = partial(fit_config, max_string_length=benchmark.max_string_length)
    for name, learning in list_contestants(benchmark, arguments, check):
        for num_automata, seed in product(benchmark.num_automata, benchmark.seeds):
            parts = [name, f"{num_automata}automata", *describe_choice(learning["chosen"])]
            options = {"model": name, "num_automata": num_automata, "seed": seed, **data}
            runs.append(Run("-".join([*parts, f"seed{seed}"]), options | learning))
    # Small ones first, and one seed after the other, so that there is something to see.
    return sorted(runs, key=lambda run: (run.options["num_automata"] or 0, run.options["seed"] or 0))


def fit_config(values: dict[str, Any], max_string_length: int) -> PreTrainedConfig:
    """Builds a config for RegBench; see [`make_config`]."""
    return make_config(values, VOCAB_SIZE, longest_sequence(max_string_length), PADDING)


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
    config = fit_config(options["config"], options["max_string_length"])
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
        "seconds": trainer.seconds,
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
