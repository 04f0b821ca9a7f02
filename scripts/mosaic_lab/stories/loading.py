"""Reads the grammar's text, and checks that all roles, phrases, tables and drawers that it names exist."""

import inspect
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from string import Formatter
from typing import Any

import yaml

from mosaic_lab.core.errors import InputError
from mosaic_lab.core.files import reading
from mosaic_lab.core.shipped import shipped
from mosaic_lab.stories.roles import Beat, Cast, Drawer, Drawers, Facts, Fork, Plot

PHRASE = re.compile(r"<(\w+)>")
CHOICE = re.compile(r"\[([^\[\]]*)\]")
# The same documents, read ten times as fast.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Grammar:
    """What stories are told from.

    Args:
        tables (`Mapping`): words, things with their adjectives, and rows of facts, by name.
        phrases (`Mapping[str, Sequence[str]]`): wordings that all plots share, by name.
        plots (`Sequence[Plot]`): in the order of the files.
    """

    tables: Mapping[str, Any]
    phrases: Mapping[str, Sequence[str]]
    plots: Sequence[Plot]


def text_folder() -> Path:
    """The folder with the text of the embedded grammar."""
    return shipped("configuration") / "story_text"


@cache
def embedded_grammar() -> Grammar:
    """Reads the shipped grammar, once."""
    return read_grammar(text_folder())


def read_grammar(folder: Path) -> Grammar:
    """Reads `vocabulary.yaml` and the files that it lists as `plot_files`.

    Raises:
        InputError: for a file that cannot be read, and for text that cannot be told; the message names the
            file and the plot.
    """
    shared = _read(folder / "vocabulary.yaml", ("plot_files", "tables", "phrases"))
    paths = [folder / f"{name}.yaml" for name in shared.get("plot_files", [])]
    files = {path: _read(path, ("tables", "plots")) for path in paths}
    tables: dict[str, Any] = {}
    for path, content in {folder / "vocabulary.yaml": shared, **files}.items():
        for name, table in content.get("tables", {}).items():
            if name in tables:
                raise InputError(f"{path}: there is a table {name!r} already")
            try:
                tables[name] = _as_table(table)
            except ValueError as error:
                raise InputError(f"{path}, table {name!r}: {error}") from error
    grammar = Grammar(tables, shared.get("phrases", {}), [])
    for path, content in files.items():
        for name, plot in content.get("plots", {}).items():
            try:
                grammar.plots.append(_read_plot(name, plot, grammar))
            except ValueError as error:
                raise InputError(f"{path}, plot {name!r}: {error}") from error
    return grammar


def _read(path: Path, sections: Sequence[str]) -> dict[str, Any]:
    with reading(path):
        text = path.read_text(encoding="utf-8")
    try:
        content = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or set(content) - set(sections):
        raise InputError(f"{path}: must be made of {', '.join(sections)}")
    return content


def _as_table(table: Any) -> Any:
    """Entries that are all mappings become rows, which must have the same fields."""
    entries = list(table.values()) if isinstance(table, dict) else table
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        return table
    for entry in entries:
        if set(entry) != set(entries[0]):
            raise ValueError(f"{entry} has not the fields {', '.join(entries[0])}")
    rows = [Facts(**entry) for entry in entries]
    return dict(zip(table, rows, strict=True)) if isinstance(table, dict) else rows


def _read_plot(name: str, plot: Any, grammar: Grammar) -> Plot:
    if not isinstance(plot, dict) or set(plot) != {"roles", "beats"}:
        raise ValueError("must be made of roles and beats")
    roles = {role: _read_drawer(role, spec, grammar) for role, spec in plot["roles"].items()}
    read = Plot(name, roles, [_read_beat(beat, plot["roles"]) for beat in plot["beats"]])
    # Rows of a table have the same fields, and so what holds for one cast holds for all of them.
    cast: Cast = {}
    for role, draw in roles.items():
        try:
            cast[role] = draw(random.Random(0), cast)
        except KeyError as error:
            raise ValueError(f"role {role!r}: unknown role or table {error}") from error
        except (AttributeError, TypeError, IndexError) as error:
            raise ValueError(f"role {role!r}: {error}") from error
    # What is drawn may hold marks, too.
    drawn = [
        grammar.tables.get(argument, argument) if isinstance(argument, str) else argument
        for spec in plot["roles"].values()
        if isinstance(spec, dict)
        for argument in spec.values()
    ]
    for text in _reachable([*_strings(read.beats), *_strings(drawn)], grammar):
        _check_text(text, cast)
    return read


def _read_drawer(role: str, spec: Any, grammar: Grammar) -> Drawer:
    arguments = {"draw": spec} if isinstance(spec, str) else {key: _as_table(spec[key]) for key in spec}
    name = arguments.pop("draw", None)
    if not isinstance(name, str) or name.startswith("_") or not hasattr(Drawers, name):
        raise ValueError(f"role {role!r}: unknown drawer {name!r}")
    drawer = getattr(Drawers(grammar.tables), name)
    try:
        inspect.signature(drawer).bind(**arguments)
    except TypeError as error:
        raise ValueError(f"role {role!r}: drawer {name!r}: {error}") from error
    return drawer(**arguments)


def _read_beat(beat: Any, roles: Mapping[str, Any]) -> Beat:
    if isinstance(beat, dict):
        if set(beat) != {"fork", "branches"}:
            raise ValueError(f"a fork has a role and branches, not {', '.join(beat)}")
        role, branches = beat["fork"], beat["branches"]
        pool = roles[role].get("pool") if isinstance(roles.get(role), dict) else None
        if not isinstance(pool, list) or sorted(map(str, pool)) != sorted(branches):
            raise ValueError(f"fork {role!r}: the branches {', '.join(branches)} are not its values")
        return Fork(
            role, {key: [_read_beat(part, roles) for part in parts] for key, parts in branches.items()}
        )
    if not isinstance(beat, list) or not beat or not all(isinstance(text, str) for text in beat):
        raise ValueError(f"a beat is a fork or a list of wordings, not {beat!r}")
    return tuple(beat)


def _strings(value: Any) -> Iterator[str]:
    """All strings in beats, tables and rows."""
    if isinstance(value, str):
        yield value
    else:
        parts = (
            value.branches if isinstance(value, Fork) else vars(value) if isinstance(value, Facts) else value
        )
        for part in parts.values() if isinstance(parts, dict) else parts:
            yield from _strings(part)


def _reachable(texts: list[str], grammar: Grammar) -> set[str]:
    """The texts, and those of all phrases in them."""
    reached = set(texts)
    while texts:
        text = texts.pop()
        for phrase in PHRASE.findall(text):
            if phrase not in grammar.phrases:
                raise ValueError(f"unknown phrase <{phrase}> in {text!r}")
            new = set(grammar.phrases[phrase]) - reached
            reached |= new
            texts += new
    return reached


def _check_text(text: str, cast: Cast) -> None:
    if set(CHOICE.sub("", PHRASE.sub("", text))) & set("[]<>"):
        raise ValueError(f"a mark has no end in {text!r}")
    try:
        for _, role, _, _ in Formatter().parse(text):
            if role is not None:
                Formatter().get_field(role, (), cast)
    except KeyError as error:
        raise ValueError(f"unknown role {error} in {text!r}") from error
    except (AttributeError, ValueError) as error:
        raise ValueError(f"{error} in {text!r}") from error
