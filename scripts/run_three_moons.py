"""Tracks three moons with one memory and with three: python scripts/run_three_moons.py RECIPE.yaml [--option value ...]"""

import sys
from functools import partial
from pathlib import Path

from experiments.points import leave_group, work_through
from three_moons.experiment import plan_points, run_point
from three_moons.options import MoonsArguments
from three_moons.plot import draw_all
from three_moons.report import format_summary, summarise
from training.errors import reported_as
from training.files import write_json, write_text
from training.recipe import RecipeParser, TrainingArguments


def main(argv: list[str] | None = None) -> None:
    """Does what is left of the recipe's runs, then the summary and the pictures."""
    with reported_as("run_three_moons"):
        leave_group()
        parser = RecipeParser(
            MoonsArguments,
            TrainingArguments,
            description="Trains memories to track three moons (paper, section 3).",
        )
        moons, arguments = parser.parse(sys.argv[1:] if argv is None else argv)
        folder = Path(arguments.output_dir)
        points = plan_points(moons, arguments)
        results = work_through(points, folder, partial(run_point, arguments=arguments))
        if None in results:
            print(
                f"{results.count(None)} runs are in the hands of other processes; the last one to end draws"
            )
            return
        summary = summarise(results)
        write_json(folder / "summary.json", summary)
        text = format_summary(summary)
        write_text(folder / "summary.md", text)
        pictures = draw_all(folder, results)
        print(f"\n{text}\nin {folder}: summary.md, summary.json, {', '.join(path.name for path in pictures)}")


if __name__ == "__main__":
    main()
