"""Repeats an experiment of the paper: python scripts/reproduce.py RECIPE [--option value ...]"""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from mosaic_lab.core.command import CommandParser, find_recipe, list_recipes, load_recipe
from mosaic_lab.core.errors import InputError, reported_as
from mosaic_lab.core.work import Experiment, leave_group

# The module that defines each experiment as EXPERIMENT.
EXPERIMENTS = {
    "three_moons": "three_moons.experiment",
    "regbench": "regbench.experiment",
    "regbench_data": "regbench.publish",
    "comparison": "comparison.experiment",
    "attention_maps": "attention_maps.experiment",
}
FOLDERS = ("three_moons", "regbench", "comparison", "attention_maps")
HELP = """\
usage: reproduce RECIPE [--option value ...]

Repeats an experiment of the paper. Any number of processes may share its runs: start the same command several
times, or with torchrun. Finished runs are kept, and stopped ones resume.

Recipes, or a path of a YAML file:
"""


def main(argv: list[str] | None = None) -> None:
    """Does the remaining runs of the recipe that `argv` names, then the tables and the pictures."""
    argv = sys.argv[1:] if argv is None else argv
    with reported_as("reproduce"):
        if not argv or argv[0] in ("-h", "--help"):
            print(HELP + "".join(f"  {name}\n" for name in recipes()) + "\nRECIPE --help lists its options.")
            return
        leave_group()
        experiment, options = parse(argv)
        experiment.carry_out(*options)


def recipes() -> list[str]:
    """Names of all shipped recipes of experiments."""
    return [f"{folder}/{name}" for folder in FOLDERS for name in list_recipes(folder)]


def parse(argv: list[str]) -> tuple[Experiment, list[Any]]:
    """The experiment of the recipe that `argv` names, and its options.

    Raises:
        InputError: for an unreadable recipe, an unknown option, or a value of the wrong type or range.
    """
    name, experiment = find_experiment(argv[0])
    parser = CommandParser(*experiment.groups, description=experiment.description, recipes="")
    parser.add_argument("--experiment", choices=[name], help="the experiment that the recipe is for")
    *options, _, unknown = parser.parse_known(argv)
    if experiment.passes_on:
        options.append(unknown)
    elif unknown:
        raise InputError(f"unrecognized arguments: {' '.join(unknown)}")
    return experiment, options


def find_experiment(recipe: str) -> tuple[str, Experiment]:
    """The experiment that a recipe is for: its name and its parts.

    Raises:
        InputError: if there is no such recipe, or if it names no experiment.
    """
    if recipe not in recipes() and not Path(recipe).exists():
        raise InputError(
            f"recipe {recipe}: there is no such file, and no recipe of that name; shipped recipes: "
            f"{', '.join(recipes())}"
        )
    name = load_recipe(find_recipe(recipe, "")).get("experiment")
    if name not in EXPERIMENTS:
        raise InputError(f"{recipe}: experiment must be one of {', '.join(EXPERIMENTS)}, not {name}")
    return name, import_module(f"mosaic_lab.{EXPERIMENTS[name]}").EXPERIMENT


if __name__ == "__main__":
    main()
