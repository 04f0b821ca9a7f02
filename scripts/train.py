"""Trains a causal language model on stories: python scripts/train.py RECIPE.yaml [--option value ...]"""

import sys

from training.errors import reported_as
from training.recipe import RecipeParser
from training.run import run


def main(argv: list[str] | None = None) -> None:
    """Runs the recipe that `argv` names, with the options that follow it."""
    with reported_as("train"):
        run(*RecipeParser().parse(sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    main()
