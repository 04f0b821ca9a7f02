"""What must not be in a story of the grammar."""

import re
from collections.abc import Iterable

import pytest

UNGRAMMATICAL = [
    pytest.param(r"[{}\[\]<>|_]", id="unresolved mark"),
    pytest.param(r"  | \n|\n |\n\n|^\s|\s$", id="stray space"),
    pytest.param(r"[.!?,][.,]|[.,][!?]|\s[.,!?]", id="punctuation"),
    pytest.param(r"\b[Aa] [aeiouAEIOU]|\b[Aa]n (?!hour|honest)[^aeiou]", id="article"),
    pytest.param(r"(?i)\b(\w+) \1\b", id="doubled word"),
    pytest.param(r"(?m)^(?!\"?[A-Z])", id="paragraph starts small"),
    pytest.param(r"(?m)[^.!?\"]$|[^.!?]\"$", id="paragraph has no end"),
    pytest.param(r"[.!?] \"?[a-z]|\.\" \"?[a-z]", id="sentence starts small"),
    pytest.param(
        r"[!?]\" (?!\"?[A-Z]|said|asked|cried|called|shouted|whispered|thought|he|she|it|they|the|one)",
        id="tag",
    ),
    pytest.param(r"[^\s\"]\"\w|\w\"\s|, [a-z]+ \"[a-z]", id="quotation"),
]


def offenders(texts: Iterable[str], pattern: str) -> list[str]:
    """What the pattern finds, with a little of its surroundings."""
    found = ((text, match) for text in texts for match in re.finditer(pattern, text))
    return [text[max(0, match.start() - 30) : match.end() + 30] for text, match in found]


def find_unbalanced(text: str) -> list[str]:
    """The paragraphs whose quotation marks do not open and close in turn."""
    unbalanced = []
    for paragraph in text.split("\n"):
        opening = re.findall(r'(?:^|\s)"', paragraph)
        closing = re.findall(r'[.!?,]"(?:\s|$)', paragraph)
        if not len(opening) == len(closing) == paragraph.count('"') / 2:
            unbalanced.append(paragraph)
    return unbalanced
