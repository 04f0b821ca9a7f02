"""Reads texts into a memory: python scripts/read.py MODEL FILE [FILE ...] --output MEMORY"""

import sys

from mosaic_lab.core.command import CommandParser
from mosaic_lab.core.errors import reported_as
from mosaic_lab.memories.options import ReadingArguments
from mosaic_lab.memories.reading import read_files


def make_parser() -> CommandParser:
    """The command line: a model, files and the options."""
    parser = CommandParser(
        ReadingArguments,
        description="Reads texts apart from each other into one memory, which generate --memory continues.",
    )
    parser.add_argument("model", help="folder or Hub id of a trained mosaic")
    parser.add_argument(
        "files", nargs="+", help="texts in UTF-8, a file each, or .jsonl or .parquet files, a text a row"
    )
    return parser


def main(argv: list[str] | None = None) -> None:
    """Reads the files that `argv` names, and saves the memory."""
    with reported_as("read", resume="the same command resumes"):
        options, others = make_parser().parse(sys.argv[1:] if argv is None else argv)
        read_files(others.model, others.files, options)


if __name__ == "__main__":
    main()
