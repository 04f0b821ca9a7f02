"""Writes RegBench as a data set: python scripts/make_regbench.py FOLDER [--option value ...]"""

import sys

from mosaic_lab.core.command import CommandParser
from mosaic_lab.core.errors import reported_as
from mosaic_lab.regbench.publish import PublishArguments, publish


def main(argv: list[str] | None = None) -> None:
    """Draws the languages, and leaves parquet files and a card in the folder that `argv` names."""
    with reported_as("make_regbench"):
        parser = CommandParser(PublishArguments, description="Writes RegBench as a data set.")
        parser.add_argument("folder", help="new folder for the data set")
        options, others = parser.parse(sys.argv[1:] if argv is None else argv)
        publish(others.folder, options)


if __name__ == "__main__":
    main()
