"""Measures trained models side by side: python scripts/evaluate.py MODEL [MODEL ...] [--option value ...]"""

import sys

from mosaic_lab.core.errors import reported_as
from mosaic_lab.evaluation.measure import evaluate
from mosaic_lab.evaluation.models import make_models_parser
from mosaic_lab.evaluation.options import EvaluationArguments
from mosaic_lab.training.options import DataArguments


def main(argv: list[str] | None = None) -> None:
    """Measures the models that `argv` names, and writes tables and pictures."""
    with reported_as("evaluate"):
        parser = make_models_parser(
            EvaluationArguments,
            DataArguments,
            description="Measures losses, in-context learning and continuations of trained models.",
        )
        *groups, others = parser.parse(sys.argv[1:] if argv is None else argv)
        evaluate(others.models, *groups)


if __name__ == "__main__":
    main()
