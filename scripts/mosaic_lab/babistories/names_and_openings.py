"""First names for heroes and openings for stories, parsed from a model's answers, so that stories differ."""

import re
from collections.abc import Iterable

NAMES_REQUEST = "Can you list 100 different first names, for girls and for boys?"
OPENINGS_REQUESTS = (
    "Write 100 different first sentences of stories for very small children, as a numbered list.",
    "Write 100 different first sentences of stories for very small children, as a numbered list. "
    "Let each of them begin with another word!",
)
# A line of a list with a name, its line end included.
MAX_NAME_LINE = 8
MAX_OPENING_WORDS = 12

_LIST_ITEM = re.compile(r"^\s*\d+[.)]\s+(.+?)\s*$", re.MULTILINE)
_NAME = re.compile(r"^\d+\. ([^\W\d_]+)$", re.MULTILINE)
_NOT_IN_OPENINGS = re.compile(r"[\"“”()\[\]{}<>*#/\\@%^+=&_|]")


def parse_names(answers: Iterable[str]) -> list[str]:
    """Finds the names in lists: items `n. Name` of at most eight characters, the line end included."""
    found = (match for answer in answers for match in _NAME.finditer(answer))
    return sorted({match[1] for match in found if len(match[0]) + 1 <= MAX_NAME_LINE})


def parse_openings(answers: Iterable[str]) -> list[str]:
    """Finds every beginning, of 1 to 12 words and without dots, of the sentences in lists.

    Sentences with quotation marks or with signs that no story may have are left out.
    """
    items = (match[1] for answer in answers for match in _LIST_ITEM.finditer(answer))
    sentences = (item.replace(".", "").replace("…", "") for item in items)
    return sorted({opening for text in sentences for opening in _beginnings(text)})


def _beginnings(sentence: str) -> list[str]:
    if _NOT_IN_OPENINGS.search(sentence):
        return []
    words = sentence.split()[:MAX_OPENING_WORDS]
    return [" ".join(words[:count]) for count in range(1, len(words) + 1)]
