"""Three moons, one memory or three: python scripts/run_three_moons.py RECIPE.yaml [--option value ...]"""

from mosaic_lab.core.experiment import run_experiment
from mosaic_lab.three_moons.experiment import plan_points, run_point
from mosaic_lab.three_moons.options import MoonsArguments
from mosaic_lab.three_moons.report import write_report


def main(argv: list[str] | None = None) -> None:
    """Does what is left of the recipe's runs, then the summary and the pictures."""
    description = "Trains memories to track three moons."
    run_experiment("run_three_moons", description, MoonsArguments, plan_points, run_point, write_report, argv)


if __name__ == "__main__":
    main()
