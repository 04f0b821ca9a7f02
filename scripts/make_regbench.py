"""Writes RegBench as a data set: python scripts/make_regbench.py FOLDER [--option value ...]"""

import sys

from regbench.publish import PublishParser, publish
from training.errors import reported_as


def main(argv: list[str] | None = None) -> None:
    """Draws the languages, and leaves parquet files and a card in the folder that `argv` names."""
    with reported_as("make_regbench"):
        publish(*PublishParser().parse(sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    main()
