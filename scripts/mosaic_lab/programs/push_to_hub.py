"""Uploads a model or a data set: python scripts/push_to_hub.py FOLDER OWNER/NAME [--option value ...]"""

import argparse

from mosaic_lab.core.errors import reported_as
from mosaic_lab.hub.push import REPO_TYPES, push


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Uploads a folder with its card in one commit, and checks what loads from there."
    )
    parser.add_argument("folder", help="what train.py, make_regbench.py or make_stories.py left")
    parser.add_argument("repo_id", help="owner/name on the Hub; created if there is none")
    parser.add_argument(
        "--repo_type", "--repo-type", choices=REPO_TYPES, default="model", help="default: model"
    )
    parser.add_argument("--private", action="store_true", help="creates a private repository")
    parser.add_argument(
        "--license", help="the Hub's identifier of the weights' licence (default: apache-2.0); models only"
    )
    parser.add_argument(
        "--evaluation", help="folder that evaluate.py left, with this model among others; models only"
    )
    parser.add_argument(
        "--dry_run",
        "--dry-run",
        metavar="FOLDER",
        help="leaves what would be uploaded in this new folder, and uploads nothing",
    )
    return parser


def main(argv: list[str] | None = None) -> None:
    """Runs the command line `argv`."""
    with reported_as("push_to_hub"):
        push(**vars(build_parser().parse_args(argv)))


if __name__ == "__main__":
    main()
