"""Measures trained models side by side: python scripts/evaluate.py MODEL [MODEL ...] [--option value ...]"""

import sys

from mosaic_lab.core.command import CommandParser
from mosaic_lab.core.errors import reported_as
from mosaic_lab.evaluation.measure import evaluate
from mosaic_lab.evaluation.options import EvaluationArguments
from mosaic_lab.training.options import DataArguments


def make_parser() -> CommandParser:
    """The command line: trained models, an optional recipe, and two groups of options."""
    parser = CommandParser(
        EvaluationArguments,
        DataArguments,
        description="Measures losses, in-context learning and continuations of trained models.",
        recipes="evaluation",
        recipe_is_option=True,
    )
    parser.add_argument(
        "models", nargs="+", help="folders (or patterns of them) or Hub ids of trained models"
    )
    return parser


def main(argv: list[str] | None = None) -> None:
    """Measures the models that `argv` names, and writes tables and pictures."""
    with reported_as("evaluate", resume="the same command resumes"):
        *groups, others = make_parser().parse(sys.argv[1:] if argv is None else argv)
        evaluate(others.models, *groups)


if __name__ == "__main__":
    main()
