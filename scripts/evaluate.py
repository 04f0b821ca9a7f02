"""Measures trained models side by side: python scripts/evaluate.py MODEL [MODEL ...] [--option value ...]"""

import sys

from evaluation.command import ModelsParser
from evaluation.measure import evaluate
from evaluation.options import EvaluationArguments
from training.errors import reported_as
from training.recipe import DataArguments


def main(argv: list[str] | None = None) -> None:
    """Measures the models that `argv` names, and writes tables and pictures."""
    with reported_as("evaluate"):
        parser = ModelsParser(
            EvaluationArguments,
            DataArguments,
            description="Measures losses, in-context learning and continuations of trained models.",
        )
        evaluate(*parser.parse(sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    main()
