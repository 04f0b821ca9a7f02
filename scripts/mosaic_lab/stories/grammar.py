"""Simple children's stories from a grammar: the corpus of a machine without a network.

A plot draws its roles first, then tells its beats; a beat is one of several wordings, in which

    {toy.a}      is a role or a form of it, the same through the whole story
    [big|small]  is one of the alternatives
    <glad>       is one of PHRASES["glad"]

so that names, pronouns and things agree from the first sentence to the last.
"""

from __future__ import annotations

import hashlib
import itertools
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from mosaic_lab.stories.plots_animals import ANIMALS
from mosaic_lab.stories.plots_friends import FRIENDS
from mosaic_lab.stories.plots_journeys import JOURNEYS
from mosaic_lab.stories.plots_lessons import LESSONS
from mosaic_lab.stories.plots_making import MAKING
from mosaic_lab.stories.plots_wonders import WONDERS
from mosaic_lab.stories.roles import Beat, Cast, Fork, Plot
from mosaic_lab.stories.vocabulary import PHRASES

PLOTS: tuple[Plot, ...] = (*JOURNEYS, *MAKING, *LESSONS, *FRIENDS, *ANIMALS, *WONDERS)

# How often a paragraph ends between two beats: a story has one paragraph, or some, or many.
BREAK_CHANCES = (0.0, 0.5, 0.7)

_PHRASE = re.compile(r"<(\w+)>")
_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_SENTENCE_START = re.compile(r"""((?:^|[.!?]\ |\.["]\ )"?)([a-z])""", re.VERBOSE)


@dataclass(frozen=True)
class Story:
    """A told story with what it was made of."""

    text: str
    plot: str
    cast: Cast


def _realise(text: str, cast: Cast, rng: random.Random) -> str:
    """Replaces all marks; facts and phrases may hold marks of their own."""
    while True:
        before = text
        text = _PHRASE.sub(lambda match: rng.choice(PHRASES[match[1]]), text)
        text = _CHOICE.sub(lambda match: rng.choice(match[1].split("|")), text)
        if "{" in text:
            text = text.format_map(cast)
        if text == before:
            return text


def tell_beats(beats: Sequence[Beat], cast: Cast, rng: random.Random) -> Iterator[str]:
    """One wording of each beat, with all marks replaced: whole sentences."""
    for beat in beats:
        if isinstance(beat, Fork):
            yield from tell_beats(beat.branches[cast[beat.role]], cast, rng)
        else:
            told = _realise(rng.choice(beat), cast, rng)
            yield _SENTENCE_START.sub(lambda match: match[1] + match[2].upper(), told)


def compose_story(rng: random.Random) -> Story:
    """Draws a plot and its cast, and tells it.

    Args:
        rng (`random.Random`): the only source of chance.

    Returns:
        `Story`: its text (a line end after each paragraph), its plot's name and its cast.
    """
    plot = rng.choice(PLOTS)
    cast: Cast = {}
    for role, draw in plot.roles.items():
        cast[role] = draw(rng, cast)
    break_chance = rng.choice(BREAK_CHANCES)
    text = join_parts(tell_beats(plot.beats, cast, rng), rng, break_chance)
    return Story(text, plot.name, cast)


def join_parts(parts: Iterable[str], rng: random.Random, break_chance: float) -> str:
    """The parts of a story, one after the other, each on a line of its own with this chance."""
    text = ""
    for part in parts:
        text += ("\n" if rng.random() < break_chance else " ") + part
    return text.strip()


def tell_story(rng: random.Random) -> str:
    """The text of one story; see `compose_story`."""
    return compose_story(rng).text


def tell_stories(num_stories: int, seed: int = 0) -> Iterator[str]:
    """Distinct stories, the same on every machine; those of a smaller corpus begin those of a larger one.

    Args:
        num_stories (`int`): how many, >= 0.
        seed (`int`): another seed gives another corpus.

    Returns:
        `Iterator[str]`: story i depends on `(seed, i)` only; one told before is drawn anew.

    Raises:
        ValueError: if `num_stories` is negative.
    """
    if num_stories < 0:
        raise ValueError(f"num_stories must be at least 0, got {num_stories}.")
    return _distinct_stories(num_stories, seed)


def _distinct_stories(num_stories: int, seed: int) -> Iterator[str]:
    told: set[bytes] = set()
    for index in range(num_stories):
        for attempt in itertools.count():
            text = tell_story(random.Random(f"{seed}/{index}/{attempt}"))
            digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
            if digest not in told:
                break
        told.add(digest)
        yield text
