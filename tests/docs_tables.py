"""Reads the tables of README and docs, and compares their numbers with those of the results."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def section(page: str, heading: str) -> str:
    """What stands under a heading of a page, up to the next one."""
    _, found, text = (ROOT / page).read_text().partition(f"\n{heading}\n")
    assert found, f"no heading {heading!r} in {page}"
    return re.split(r"^#+ ", text, maxsplit=1, flags=re.MULTILINE)[0]


def rows(page: str, heading: str) -> list[list[str]]:
    """The cells of all lines of the tables under a heading of a page, without emphasis."""
    return cells_of(section(page, heading))


def cells_of(text: str) -> list[list[str]]:
    """The cells of all lines of tables, without emphasis."""
    lines = text.splitlines()
    lines = [line for line in lines if line.startswith("|") and set(line) - set("|- ")]
    return [[re.sub(r"\*\*|`", "", cell).strip() for cell in line.split("|")[1:-1]] for line in lines]


def row(page: str, heading: str, *start: str) -> list[str]:
    """The cells behind `start` in the one line under a heading that begins so."""
    found = [cells[len(start) :] for cells in rows(page, heading) if cells[: len(start)] == list(start)]
    assert len(found) == 1, f"{page}, {heading}: {len(found)} lines begin with {start}"
    return found[0]


def as_shown(cell: str, value: float) -> str:
    """`value` with the decimals, the sign and the unit of `cell`."""
    shown = re.fullmatch(r"([+-]?)[\d,]*\.?(\d*)(%?)", cell)
    assert shown, f"{cell!r} is no number"
    sign, decimals, percent = shown.groups()
    return f"{value:{'+' if sign else ''},.{len(decimals)}{percent or 'f'}}"


def check(cells: list[str], values: list[float], what: str) -> None:
    """All cells show their values."""
    assert cells == [as_shown(*pair) for pair in zip(cells, values, strict=True)], what


def load(name: str, file: str = "results.json"):
    return json.loads((ROOT / "results" / name / file).read_text())
