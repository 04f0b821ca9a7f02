"""Attention by position: python scripts/run_attention_maps.py MODEL [MODEL ...] [--option value ...]"""

import sys

from mosaic_lab.attention_maps.experiment import measure_all
from mosaic_lab.attention_maps.options import MapsArguments
from mosaic_lab.core.errors import reported_as
from mosaic_lab.evaluation.models import make_models_parser
from mosaic_lab.training.options import DataArguments


def main(argv: list[str] | None = None) -> None:
    """Measures the models' attention scores, and leaves arrays, tables and pictures in a folder."""
    with reported_as("run_attention_maps"):
        parser = make_models_parser(
            MapsArguments,
            DataArguments,
            description="Measures the attention scores of the last position, averaged over sequences.",
        )
        *groups, others = parser.parse(sys.argv[1:] if argv is None else argv)
        print(measure_all(others.models, *groups))


if __name__ == "__main__":
    main()
