"""Learning in context: each run trains one model on one task, and tests it on longer and fuller rows."""

from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM, PreTrainedConfig, set_seed

from mosaic_lab.core.files import write_arrays
from mosaic_lab.core.work import ARRAYS, Experiment, Run, share
from mosaic_lab.in_context.metrics import accuracy_of, count_right
from mosaic_lab.in_context.options import TASKS, InContextArguments
from mosaic_lab.in_context.report import COUNTS, write_report
from mosaic_lab.in_context.rows import Rows, draw_rows
from mosaic_lab.training.contestants import describe_choice, list_contestants, make_config, split_choice
from mosaic_lab.training.one_run import finish, train
from mosaic_lab.training.options import TrainingArguments

DATA = ("task", "length", "counts", "num_train", "num_validation", "num_test", "row_seed")
# Streams of random numbers, which share no row.
TRAIN, VALIDATION, TEST = range(3)


def plan_runs(options: InContextArguments, arguments: TrainingArguments) -> list[Run]:
    """Plans a run for each model, choice of hyperparameters and seed; all with the first seed come first.

    Raises:
        InputError: if a model has no config, or one that does not fit.
    """
    data = {name: getattr(options, name) for name in DATA} | {"tests": [list(test) for test in options.tests]}
    contestants = list(list_contestants(options, arguments, partial(fit_config, options=data)))
    return [
        Run(
            "-".join([name, *describe_choice(learning["chosen"]), f"seed{seed}"]),
            {"model": name, "seed": seed, **data, **learning},
        )
        for seed in options.seeds
        for name, learning in contestants
    ]


def fit_config(values: dict[str, Any], options: dict[str, Any]) -> PreTrainedConfig:
    """Builds a config for the task of a run; see [`make_config`]."""
    longest = max(options["length"], *(length for length, _ in options["tests"]))
    return make_config(values, TASKS[options["task"]]().vocab_size, longest)


@lru_cache
def load_rows(task: str, seed: int, stream: int, number: int, length: int, counts: tuple[int, ...]) -> Rows:
    """Rows of a stream, drawn once in each process."""
    stream_seed = [seed, stream, length, len(counts), *counts]
    return draw_rows(TASKS[task](), stream_seed, number, length, list(counts))


def run_one(run: Run, folder: Path, _: InContextArguments, arguments: TrainingArguments) -> dict[str, Any]:
    """Trains one model, takes its best checkpoint by validation loss, and tests it.

    Returns:
        `dict`: `num_parameters`, and `num_positions` of them in position embeddings; `validation_loss`,
        `best_step`, `seconds`; `accuracy`, one number for each of `tests`. `arrays.npz` in `folder` has the
        numbers of answers and of right ones by place.
    """
    options = run.options
    load = partial(load_rows, options["task"], options["row_seed"])
    training = options["length"], tuple(options["counts"])
    sizes = {TRAIN: options["num_train"], VALIDATION: options["num_validation"]}
    set_seed(options["seed"])
    model = AutoModelForCausalLM.from_config(fit_config(options["config"], options))
    changes, _ = split_choice(options["chosen"])
    trainer = train(
        model,
        arguments,
        folder,
        tuple(load(stream, number, *training) for stream, number in sizes.items()),
        changes | {"seed": options["seed"]},
    )
    accuracy, arrays = [], {}
    for length, count in options["tests"]:
        counts = count_right(trainer.model, load(TEST, options["num_test"], length, (count,)))
        accuracy.append(accuracy_of(counts))
        arrays |= {f"{name}_{length}_{count}": part for name, part in zip(COUNTS, counts, strict=True)}
    write_arrays(folder / ARRAYS, arrays)
    result = {
        "num_parameters": model.num_parameters(),
        "num_positions": sum(weight.numel() for name, weight in model.named_parameters() if ".wpe." in name),
        "validation_loss": trainer.state.best_metric,
        "best_step": trainer.state.best_global_step,
        "seconds": trainer.seconds,
        "accuracy": accuracy,
    }
    finish(trainer, folder)
    return result


EXPERIMENT = Experiment(
    "Trains models to learn in context: to recall pairs, to find facts in a long text, to classify.",
    (InContextArguments, TrainingArguments),
    share(plan_runs, run_one, write_report),
)
