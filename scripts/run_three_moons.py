"""Three moons, one memory or three: python scripts/run_three_moons.py RECIPE.yaml [--option value ...]"""

import sys
from functools import partial
from pathlib import Path

from experiments.points import leave_group, work_through
from three_moons.experiment import plan_points, run_point
from three_moons.options import MoonsArguments
from three_moons.report import write_report
from training.errors import reported_as
from training.recipe import RecipeParser, TrainingArguments


def main(argv: list[str] | None = None) -> None:
    """Does what is left of the recipe's runs, then the summary and the pictures."""
    with reported_as("run_three_moons"):
        leave_group()
        parser = RecipeParser(
            MoonsArguments,
            TrainingArguments,
            description="Trains memories to track three moons.",
        )
        moons, arguments = parser.parse(sys.argv[1:] if argv is None else argv)
        folder = Path(arguments.output_dir)
        points = plan_points(moons, arguments)
        results = work_through(points, folder, partial(run_point, arguments=arguments))
        if None in results:
            print(f"{results.count(None)} runs are left to other processes; the last one of them reports")
            return
        print(f"\n{write_report(folder, results)}")


if __name__ == "__main__":
    main()
