"""Trains models alike, and compares them: python scripts/run_comparison.py SET.yaml [--option value ...]"""

import sys

from mosaic_lab.comparison.experiment import compare
from mosaic_lab.comparison.options import parse_comparison
from mosaic_lab.core.errors import reported_as


def main(argv: list[str] | None = None) -> None:
    """Does what is left of the set's runs, then the table and the curves."""
    with reported_as("run_comparison"):
        compare(*parse_comparison(sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    main()
