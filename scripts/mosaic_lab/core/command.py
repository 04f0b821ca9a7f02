"""The command line of all programs: arguments, options by dataclass, and recipes that preset them."""

import difflib
import json
import math
from argparse import Action, ArgumentError, ArgumentTypeError, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from transformers import HfArgumentParser
from transformers import TrainingArguments as HfTrainingArguments
from transformers.hf_argparser import string_to_bool

from mosaic_lab.core.bounds import TRAINER_BOUNDS
from mosaic_lab.core.errors import InputError
from mosaic_lab.core.files import reading
from mosaic_lab.core.shipped import shipped

# Bytes, and levels of lists and mappings.
LARGEST_RECIPE, DEEPEST_RECIPE = 2**17, 20


class CommandParser(HfArgumentParser):
    """Parses `[RECIPE] [ARGUMENT ...] [--option value ...]`; what is wrong raises an `InputError`.

    Numbers are finite, and whole ones fit into 64 bits. Options have one spelling, with underscores.

    Args:
        groups (`type`): dataclasses of the options, in the order of the help text.
        description (`str`): what the program does.
        recipes (`str`, *optional*): folder in `configuration` with the program's recipes, YAML files of
            `option: value` lines. The recipe is then the first argument: the name of one of these, or a path.
        recipe_is_option (`bool`): makes the recipe the option `--recipe` instead. It may also give the
            arguments, under their name, of a program that takes one or more.
    """

    def __init__(
        self,
        *groups: type,
        description: str,
        recipes: str | None = None,
        recipe_is_option: bool = False,
    ):
        if recipes is not None:
            description += " Options on the command line override the recipe."
        super().__init__(groups, description=description, allow_abbrev=False)
        self.register("type", int, _read_int)
        self.register("type", float, _read_float)
        self.recipes = recipes
        if recipes is not None:
            self.add_argument(
                "--recipe" if recipe_is_option else "recipe",
                help="name of a recipe or a YAML file with any of the options below, one `option: value` per "
                f"line; shipped: {', '.join(list_recipes(recipes)) or 'none'}",
            )

    def add_argument(self, *names: str, **options) -> Action:
        """`ArgumentParser.add_argument`, without the spellings with dashes that transformers adds."""
        return super().add_argument(*(name for name in names if "-" not in name.lstrip("-")), **options)

    def format_help(self) -> str:
        """The help, with a line of usage that does not list every option."""
        arguments = [
            f"{action.dest.upper()}{' [...]' if action.nargs == '+' else ''}"
            for action in self._get_positional_actions()
        ]
        self.usage = " ".join(["%(prog)s", *arguments, "[--option value ...]"])
        return super().format_help()

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
        _check_unicode(argv)
        if self.recipes is not None and (recipe := self._name_recipe(argv)) is not None:
            path = find_recipe(recipe, self.recipes)
            self.set_defaults(**self._read_recipe(path))
        try:
            parsed = self.parse_args_into_dataclasses(
                list(argv), return_remaining_strings=True, look_for_args_file=False
            )
        except ValueError as error:
            raise InputError(error) from error
        num_groups = len(self.dataclass_types)
        groups = parsed[:num_groups]
        for group in groups:
            _check_numbers(group)
        others = parsed[num_groups] if len(parsed) > num_groups + 1 else Namespace()
        if getattr(others, "recipe", None) is not None:
            others.recipe = str(path)
        return *groups, others, parsed[-1]

    def _name_recipe(self, argv: Sequence[str]) -> str | None:
        """The recipe in `argv`, which may give whatever else is required."""
        required = [action for action in self._actions if action.required and action.dest != "recipe"]
        for action in required:
            action.required = False
        recipe = self.parse_known_args(list(argv))[0].recipe
        for action in required:
            action.required = True
        return recipe

    def _read_recipe(self, path: Path) -> dict[str, Any]:
        """The values of a recipe, of the types of their options, which need not be given any more."""
        values, recipe = {}, load_recipe(path)
        try:
            for key, value in recipe.items():
                action = self._find_action(str(key))
                if value is not None:
                    values[action.dest] = self._get_values(action, self._as_typed(action, value))
                    action.required = False
        except (InputError, ArgumentError) as error:
            raise InputError(f"{path}: {error}") from error
        return values

    def _find_action(self, key: str) -> Action:
        actions = {
            action.dest: action
            for action in self._actions
            if f"--{action.dest}" in action.option_strings or action.nargs == "+"
        }
        known = actions.keys() - {"help", "recipe"}
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            raise InputError(f"unknown option {key!r}" + (f"; did you mean {close[0]!r}?" if close else ""))
        return actions[key]

    def _as_typed(self, action: Action, value: Any) -> list[str]:
        """A value of a recipe as one would type it, so that both are checked by the same types."""
        if isinstance(value, list) and action.nargs == "+":
            words = [str(entry) for entry in value]
        elif isinstance(value, dict | list):
            words = [json.dumps(value, default=str)]
        elif value is False and action.type is not string_to_bool:
            # YAML reads the word `no`, as in `save_strategy: no`, as a boolean.
            words = ["no"]
        else:
            words = [str(value)]
        if any("\0" in word for word in words):
            raise InputError(f"{action.dest} holds a NUL character")
        _check_unicode(words)
        return words


def _check_unicode(words: Sequence[str]) -> None:
    """Refuses bytes that are no UTF-8, and escapes of such: neither tokenizers nor cards take them."""
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"argument {word!r}: not text in UTF-8 at character {error.start}") from error


def _read_int(text: str) -> int:
    number = int(text)
    if not -(2**63) <= number < 2**63:
        raise ArgumentTypeError(f"{text} does not fit into 64 bits")
    return number


def _read_float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ArgumentTypeError(f"must be a finite number, not {text}")
    return number


def _check_numbers(group: Any) -> None:
    """Checks the numbers inside of structured options, and the ranges of the Trainer's."""
    for name, value in vars(group).items():
        entries = value.values() if isinstance(value, dict) else ()
        if not all(math.isfinite(entry) for entry in entries if isinstance(entry, float)):
            raise InputError(f"{name} must hold finite numbers, not {value}")
    if isinstance(group, HfTrainingArguments):
        try:
            check_range(group, **TRAINER_BOUNDS)
        except ValueError as error:
            raise InputError(error) from error


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
    with reading(path), path.open("rb") as file:
        content = file.read(LARGEST_RECIPE + 1)
    if len(content) > LARGEST_RECIPE:
        raise InputError(f"{path}: too large for a recipe, which is made of lines `option: value`")
    try:
        text = content.decode("utf-8")
        _refuse_bombs(path, text)
        recipe = yaml.safe_load(text)
    except InputError:
        raise
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(recipe, dict):
        raise InputError(f"{path}: a recipe is made of lines `option: value`")
    return recipe


def _refuse_bombs(path: Path, text: str) -> None:
    """Small files that would take for ever to read: aliases of aliases, and lists in lists in lists."""
    depth = 0
    for event in yaml.parse(text):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent):
            raise InputError(f"{path}: a recipe has no aliases (*name)")
        if depth > DEEPEST_RECIPE:
            raise InputError(f"{path}: nested deeper than {DEEPEST_RECIPE} levels")


def check_least(options: Any, **bounds: float) -> None:
    """Checks that options, or all entries of list options, are at least as large as `bounds` say.

    `None` and empty lists pass.

    Raises:
        ValueError: that names the option, the bound and the value.
    """
    check_range(options, **{name: (least, math.inf) for name, least in bounds.items()})


def check_range(options: Any, **bounds: tuple[float, float]) -> None:
    """Checks that options, or all entries of list options, lie between two bounds or are one of them.

    `None` and empty lists pass.

    Raises:
        ValueError: that names the option, the bound and the value.
    """
    for name, (least, most) in bounds.items():
        value = getattr(options, name)
        values = value if isinstance(value, list) else [] if value is None else [value]
        if not all(entry >= least for entry in values):
            raise ValueError(f"{name} must be at least {least}, not {value}")
        if not all(entry <= most for entry in values):
            raise ValueError(f"{name} must be at most {most}, not {value}")


def check_each_once(options: Any, *names: str) -> None:
    """Checks that list options name one entry or more, each once.

    Raises:
        ValueError: that names the option and the value.
    """
    for name in names:
        value = getattr(options, name)
        if not value or len(set(value)) != len(value):
            raise ValueError(f"{name} must name one or more, each once, not {value}")
