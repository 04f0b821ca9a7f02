"""RegBench, learning languages in context: python scripts/run_regbench.py RECIPE.yaml [--option value ...]"""

import sys
from functools import partial
from pathlib import Path

from experiments.points import leave_group, work_through
from regbench.experiment import plan_points, run_point
from regbench.options import RegBenchArguments
from regbench.report import write_report
from training.errors import reported_as
from training.recipe import RecipeParser, TrainingArguments

import modeling_mosaic  # noqa: F401  (teaches the Auto classes the mosaic)


def main(argv: list[str] | None = None) -> None:
    """Does what is left of the recipe's runs, then the table and the pictures."""
    with reported_as("run_regbench"):
        leave_group()
        parser = RecipeParser(
            RegBenchArguments, TrainingArguments, description="Trains models to learn languages in context."
        )
        benchmark, arguments = parser.parse(sys.argv[1:] if argv is None else argv)
        folder = Path(arguments.output_dir)
        points = plan_points(benchmark, arguments)
        run = partial(run_point, benchmark=benchmark, arguments=arguments)
        results = work_through(points, folder, run)
        if None in results:
            print(f"{results.count(None)} runs are left to other processes; the last one of them reports")
            return
        print(f"\n{write_report(folder, results)}")


if __name__ == "__main__":
    main()
