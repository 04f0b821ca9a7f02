"""Attention by position: python scripts/run_attention_maps.py MODEL [MODEL ...] [--option value ...]"""

import sys

from attention_maps.experiment import measure_all
from attention_maps.options import MapsArguments
from evaluation.command import ModelsParser
from training.errors import reported_as
from training.recipe import DataArguments


def main(argv: list[str] | None = None) -> None:
    """Measures the models' attention scores, and leaves arrays, tables and pictures in a folder."""
    with reported_as("run_attention_maps"):
        parser = ModelsParser(
            MapsArguments,
            DataArguments,
            description="Measures the attention scores of the last position, averaged over sequences.",
        )
        print(measure_all(*parser.parse(sys.argv[1:] if argv is None else argv)))


if __name__ == "__main__":
    main()
