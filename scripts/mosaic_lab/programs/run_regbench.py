"""RegBench, learning languages in context: python scripts/run_regbench.py RECIPE.yaml [--option value ...]"""

from mosaic_lab.core.experiment import run_experiment
from mosaic_lab.regbench.experiment import plan_points, run_point
from mosaic_lab.regbench.options import RegBenchArguments
from mosaic_lab.regbench.report import write_report


def main(argv: list[str] | None = None) -> None:
    """Does what is left of the recipe's runs, then the table and the pictures."""
    description = "Trains models to learn languages in context."
    run_experiment("run_regbench", description, RegBenchArguments, plan_points, run_point, write_report, argv)


if __name__ == "__main__":
    main()
