"""Names for heroes and words to begin stories with, so that they differ: a model's, or the grammar's."""

import random
import re
from collections.abc import Iterable

from mosaic_lab.babistories.prompts import StoryPrompt
from mosaic_lab.stories.grammar import compose_story
from mosaic_lab.stories.vocabulary import BOY_ANIMALS, BOYS, GIRL_ANIMALS, GIRLS, PET_NAMES

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
_GRAMMAR_NAMES = frozenset((*GIRLS, *BOYS, *GIRL_ANIMALS, *BOY_ANIMALS, *PET_NAMES))


def parse_names(answers: Iterable[str]) -> list[str]:
    """The names in a model's lists: items `n. Name` of at most eight characters, the line's end included."""
    found = (match for answer in answers for match in _NAME.finditer(answer))
    return sorted({match[1] for match in found if len(match[0]) + 1 <= MAX_NAME_LINE})


def parse_openings(answers: Iterable[str]) -> list[str]:
    """Every beginning, of 1 to 12 words and without dots, of the sentences in a model's lists.

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


def grammar_names() -> list[str]:
    """The names of the grammar's children."""
    return [*GIRLS, *BOYS]


def grammar_openings(num_stories: int, seed: int) -> list[str]:
    """The beginnings, of 1 to 12 words, of the first sentences of so many stories, up to the first name.

    One that many stories have is there many times, and so the likelier to be drawn.
    """
    openings = []
    for index in range(num_stories):
        story = compose_story(random.Random(f"{seed}/openings/{index}"))
        sentence = re.match(r"[^.!?\"\n]*", story.text)[0]
        words = sentence.split()
        named = (place for place, word in enumerate(words) if re.split(r"\W", word)[0] in _GRAMMAR_NAMES)
        openings += _beginnings(" ".join(words[: next(named, None)]))
    return openings


def fits_gender(prompt: StoryPrompt) -> bool:
    """Whether the opening does not speak of a girl where the name is a boy's, or the other way around."""
    gender = gender_of(prompt.name)
    words = set(re.findall(r"\w+", prompt.opening.lower()))
    return not (words & {"girl", "she", "her"} and gender == "male") and not (
        words & {"boy", "he", "his", "him"} and gender == "female"
    )


def gender_of(name: str) -> str | None:
    """The gender of a name that the grammar knows."""
    if name in GIRLS or name in GIRL_ANIMALS:
        return "female"
    return "male" if name in BOYS or name in BOY_ANIMALS else None
