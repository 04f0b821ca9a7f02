"""Trains a causal language model on stories: python scripts/train.py RECIPE.yaml [--option value ...]"""

import sys

from mosaic_lab.core.command import CommandParser
from mosaic_lab.core.errors import reported_as
from mosaic_lab.hub.push import push
from mosaic_lab.training.options import DataArguments, ModelArguments, TrainingArguments
from mosaic_lab.training.run import run


def make_parser() -> CommandParser:
    """The command line: a recipe and three groups of options."""
    return CommandParser(
        ModelArguments,
        DataArguments,
        TrainingArguments,
        description="Trains a causal language model.",
        recipes="train",
    )


def main(argv: list[str] | None = None) -> None:
    """Runs the recipe that `argv` names, with the options that follow it."""
    with reported_as("train", resume="--resume_from_checkpoint resumes from the last checkpoint"):
        model, data, training, _ = make_parser().parse(sys.argv[1:] if argv is None else argv)
        repo_id = run(model, data, training)["repo_id"]
        if repo_id is not None and training.process_index == 0:
            push(training.output_dir, repo_id)


if __name__ == "__main__":
    main()
