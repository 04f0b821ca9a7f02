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
    "in_context": "in_context.experiment",
    "comparison": "comparison.experiment",
    "attention_maps": "attention_maps.experiment",
    "inspection": "inspection.experiment",
    "merging_strings": "merging.strings",
    "merging_texts": "merging.texts",
    "bounding_strings": "bounding.strings",
    "bounding_texts": "bounding.texts",
    "searching": "searching.experiment",
    "serving": "serving.experiment",
    "speedrun": "speedrun.experiment",
}
HELP = """\
usage: reproduce RECIPE [--option value ...]

Repeats an experiment of the paper. Any number of processes may share its runs: start the same command several
times, or with torchrun. Finished runs are kept, and stopped ones resume.

Recipes, or a path of a YAML file:
"""


def main(argv: list[str] | None = None) -> None:
    """Does the remaining runs of the recipe that `argv` names, then the tables and the pictures."""
    argv = sys.argv[1:] if argv is None else argv
    with reported_as("reproduce", resume="the same command resumes"):
        if not argv or argv[0] in ("-h", "--help"):
            print(HELP + "".join(f"  {name}\n" for name in list_all()) + "\nRECIPE --help lists its options.")
            return
        leave_group()
        experiment, options = parse(argv)
        experiment.carry_out(*options)


def parse(argv: list[str]) -> tuple[Experiment, list[Any]]:
    """The experiment of the recipe that `argv` names, and its options.

    Raises:
        InputError: for an unreadable recipe, an unknown option, or a value of the wrong type or range.
    """
    experiment, parser = make_parser(argv[0])
    *options, _, unknown = parser.parse_known([str(find_recipe(argv[0], "")), *argv[1:]])
    if experiment.passes_on:
        options.append(unknown)
    elif unknown:
        raise InputError(f"unrecognized arguments: {' '.join(unknown)}")
    return experiment, options


def make_parser(recipe: str) -> tuple[Experiment, CommandParser]:
    """The experiment that `recipe`, a shipped one's name or a path, is for; and its command line.

    Raises:
        InputError: for an unreadable recipe, or one for no experiment.
    """
    if recipe not in list_all() and not Path(recipe).exists():
        raise InputError(
            f"recipe {recipe}: there is no such file, and no recipe of that name; shipped recipes: "
            f"{', '.join(list_all())}"
        )
    path = find_recipe(recipe, "")
    name = str(load_recipe(path).get("experiment"))
    if name not in EXPERIMENTS:
        raise InputError(f"{path}: experiment must be one of {', '.join(EXPERIMENTS)}, not {name}")
    module = EXPERIMENTS[name]
    experiment: Experiment = import_module(f"mosaic_lab.{module}").EXPERIMENT
    parser = CommandParser(
        *experiment.groups, description=experiment.description, recipes=module.partition(".")[0]
    )
    parser.add_argument("--experiment", choices=[name], help="the experiment that the recipe is for")
    return experiment, parser


def list_all() -> list[str]:
    """Names of all shipped recipes of experiments."""
    folders = dict.fromkeys(module.partition(".")[0] for module in EXPERIMENTS.values())
    return [f"{folder}/{name}" for folder in folders for name in list_recipes(folder)]


if __name__ == "__main__":
    main()
