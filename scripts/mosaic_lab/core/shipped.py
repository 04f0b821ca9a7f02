"""Data files that come with the programs: recipes, presets and card templates."""

from pathlib import Path

_PACKAGE = Path(__file__).parents[1]


def shipped(folder: str) -> Path:
    """The folder `configuration` or `hub_cards`: in the installed package, or at the top of a checkout."""
    inside = _PACKAGE / folder
    return inside if inside.is_dir() else _PACKAGE.parents[1] / folder
