"""Uploads a model or a data set: python scripts/push_to_hub.py FOLDER OWNER/NAME [--option value ...]"""

import sys

from mosaic_lab.core.command import CommandParser
from mosaic_lab.core.errors import reported_as
from mosaic_lab.hub.push import REPO_TYPES, push


def make_parser() -> CommandParser:
    """The command line."""
    parser = CommandParser(
        description="Uploads a folder with its card in one commit, and checks what loads from there."
    )
    parser.add_argument("folder", help="output folder of train, reproduce regbench/data or make-stories")
    parser.add_argument("repo_id", help="owner/name on the Hub; created if there is none")
    parser.add_argument("--repo_type", choices=REPO_TYPES, default="model", help="default: model")
    parser.add_argument("--private", action="store_true", help="creates a private repository")
    parser.add_argument(
        "--license", help="the Hub's identifier of the weights' licence (default: apache-2.0); models only"
    )
    parser.add_argument(
        "--evaluation",
        help="output folder of evaluate.py, for an evaluation that includes this model; models only",
    )
    parser.add_argument(
        "--dry_run",
        metavar="FOLDER",
        help="writes the files that would be uploaded into this new folder, and uploads nothing",
    )
    return parser


def main(argv: list[str] | None = None) -> None:
    """Runs the command line `argv`."""
    with reported_as("push_to_hub"):
        (options,) = make_parser().parse(sys.argv[1:] if argv is None else argv)
        push(**vars(options))


if __name__ == "__main__":
    main()
