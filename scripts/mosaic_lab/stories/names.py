"""The names of people and animals that the embedded stories draw from, wherever they stand in a text."""

import re
from functools import cache

from mosaic_lab.stories.loading import embedded_grammar

NAME_TABLES = ("girls", "boys", "girl_animals", "boy_animals", "pet_names")


@cache
def list_names() -> frozenset[str]:
    """All of them: "Lily", "Bongo", "Button"."""
    tables = embedded_grammar().tables
    return frozenset(name for table in NAME_TABLES for name in tables[table])


@cache
def _pattern() -> re.Pattern:
    return re.compile(rf"\b(?:{'|'.join(sorted(list_names()))})\b")


def find_names(text: str) -> list[re.Match]:
    """Where names stand in `text`, in order; others than those of the grammar are not known."""
    return list(_pattern().finditer(text))
