"""The command line of all programs: arguments, options by dataclass, and recipes that preset them."""

import difflib
import json
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from transformers import HfArgumentParser
from transformers.hf_argparser import string_to_bool

from mosaic_lab.core.errors import InputError
from mosaic_lab.core.shipped import shipped


class CommandParser(HfArgumentParser):
    """Parses `[RECIPE] [ARGUMENT ...] [--option value ...]`; what is wrong raises an `InputError`.

    Args:
        groups (`type`): dataclasses of the options, in the order of the help text.
        description (`str`): what the program does.
        recipes (`str`, *optional*): folder in `configuration` with the program's recipes, YAML files of
            `option: value` lines. The recipe is then the first argument: the name of one of these, or a path.
    """

    def __init__(self, *groups: type, description: str, recipes: str | None = None):
        if recipes is not None:
            description += " Options on the command line override the recipe."
        super().__init__(groups, description=description, allow_abbrev=False)
        self.recipes = recipes
        if recipes is not None:
            self.add_argument(
                "recipe",
                help="name of a recipe or a YAML file with any of the options below, one `option: value` per "
                f"line; shipped: {', '.join(list_recipes(recipes))}",
            )

    def error(self, message: str):
        raise InputError(message)

    def parse(self, argv: Sequence[str]) -> tuple[Any, ...]:
        """The groups of options, each an object of its class, and a `Namespace` of all other arguments.

        Raises:
            InputError: for an unreadable recipe, an unknown option, or a value of the wrong type or range.
        """
        *parsed, unknown = self.parse_known(argv)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return tuple(parsed)

    def parse_known(self, argv: Sequence[str]) -> tuple[Any, ...]:
        """`parse`, followed by the list of what belongs to no option and no argument."""
        argv = list(argv)
        if self.recipes is not None:
            recipe = self.parse_known_args(argv)[0].recipe
            path = find_recipe(recipe, self.recipes)
            argv.remove(recipe)
            argv = [str(path), *self._read_recipe(path), *argv]
        try:
            parsed = self.parse_args_into_dataclasses(
                argv, return_remaining_strings=True, look_for_args_file=False
            )
        except ValueError as error:
            raise InputError(error) from error
        num_groups = len(self.dataclass_types)
        others = parsed[num_groups] if len(parsed) > num_groups + 1 else Namespace()
        return *parsed[:num_groups], others, parsed[-1]

    def _read_recipe(self, path: Path) -> list[str]:
        options = []
        try:
            for key, value in load_recipe(path).items():
                options += self._as_options(str(key), value)
            self.parse_known_args([str(path), *options])
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        return options

    def _as_options(self, key: str, value: Any) -> list[str]:
        """A line of a recipe as one would type it, so that both are checked by the same types."""
        action = self._option_string_actions.get(f"--{key}")
        if action is None or action.dest != key:
            close = difflib.get_close_matches(key, [action.dest for action in self._actions], n=1)
            raise InputError(f"unknown option {key!r}" + (f"; did you mean {close[0]!r}?" if close else ""))
        if value is None:
            return []
        if isinstance(value, list) and action.nargs == "+":
            return [f"--{key}", *map(str, value)]
        if isinstance(value, dict | list):
            value = json.dumps(value)
        elif value is False and action.type is not string_to_bool:
            # YAML reads the word `no`, as in `save_strategy: no`, as a boolean.
            value = "no"
        return [f"--{key}={value}"]


def list_recipes(folder: str) -> list[str]:
    """Names of the shipped recipes in a folder of `configuration`, those of folders in it included."""
    root = shipped("configuration") / folder
    return sorted(path.relative_to(root).with_suffix("").as_posix() for path in root.rglob("*.yaml"))


def find_recipe(name: str, folder: str) -> Path:
    """The file of the recipe `name`: a path, or a shipped recipe's name.

    Raises:
        InputError: if there is neither; the message lists the shipped recipes.
    """
    path = Path(name)
    shipped_path = shipped("configuration") / folder / f"{name}.yaml"
    if path.is_file() or not shipped_path.is_file():
        if not path.exists():
            raise InputError(
                f"recipe {name}: there is no such file, and no recipe of that name; shipped recipes: "
                f"{', '.join(list_recipes(folder))}"
            )
        return path
    return shipped_path


def load_recipe(path: Path) -> dict[str, Any]:
    """The options in a recipe.

    Raises:
        InputError: if it cannot be read, or is not YAML with one `option: value` per line.
    """
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(recipe, dict):
        raise InputError(f"{path}: a recipe is made of lines `option: value`")
    return recipe


def check_least(options: Any, **bounds: float) -> None:
    """Checks that options, or all entries of list options, are at least as large as `bounds` say.

    `None` and empty lists pass.

    Raises:
        ValueError: that names the option, the bound and the value.
    """
    for name, bound in bounds.items():
        value = getattr(options, name)
        values = value if isinstance(value, list) else [] if value is None else [value]
        if not all(entry >= bound for entry in values):
            raise ValueError(f"{name} must be at least {bound}, not {value}")


def check_each_once(options: Any, *names: str) -> None:
    """Checks that list options name one entry or more, each once.

    Raises:
        ValueError: that names the option and the value.
    """
    for name in names:
        value = getattr(options, name)
        if not value or len(set(value)) != len(value):
            raise ValueError(f"{name} must name one or more, each once, not {value}")
