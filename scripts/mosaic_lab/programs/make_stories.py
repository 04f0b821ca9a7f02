"""Makes a data set of stories: python scripts/make_stories.py RECIPE.yaml [--option value ...]"""

import sys

import modeling_mosaic  # noqa: F401  (teaches the Auto classes the mosaic)
from mosaic_lab.babistories.options import StoryArguments
from mosaic_lab.babistories.pipeline import make_stories
from mosaic_lab.core.command import CommandParser
from mosaic_lab.core.errors import reported_as


def make_parser() -> CommandParser:
    """The command line: a recipe and its options."""
    return CommandParser(StoryArguments, description="Makes a data set of short stories.", recipes="stories")


def main(argv: list[str] | None = None) -> None:
    """Runs the recipe that `argv` names, with the options that follow it, and prints what came of it."""
    with reported_as("make_stories", resume="the same command resumes"):
        options, _ = make_parser().parse(sys.argv[1:] if argv is None else argv)
        statistics = make_stories(options)
        if statistics is None:
            print(f"{options.output_dir} is done: another process has finished it")
        else:
            print(summarise(options.output_dir, statistics))


def summarise(folder: str, statistics: dict) -> str:
    """The statistics in a few lines."""
    lines = [f"{rule}: {count:,}" for rule, count in statistics["counts"].items()]
    for split, row in statistics["splits"].items():
        lines.append(
            f"{split}: {row['stories']:,} stories, {row['tokens']:,} tokens, "
            f"{row['mean_characters']} characters a story"
        )
    lines.append(f"distinct 4-grams: {statistics['distinct_4_grams']:,}")
    for order, loss in (statistics["ngram_losses"] or {}).items():
        lines.append(f"loss of a {order}-gram model: {loss}")
    return "\n".join([*lines, f"The data set is in {folder}"])


if __name__ == "__main__":
    main()
