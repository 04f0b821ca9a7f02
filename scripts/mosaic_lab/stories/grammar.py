"""Simple children's stories from a grammar: a corpus for machines without a network.

A plot draws its roles first, then tells its beats, so that names, pronouns and things agree from the first
sentence to the last. The text is in `configuration/story_text`; its `vocabulary.yaml` explains the form.
"""

import hashlib
import itertools
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mosaic_lab.stories.loading import CHOICE, PHRASE, embedded_grammar
from mosaic_lab.stories.roles import Beat, Cast, Fork, Plot

# How often a paragraph ends between two beats: a story has one paragraph, or some, or many.
BREAK_CHANCES = (0.0, 0.5, 0.7)

_SENTENCE_START = re.compile(r"""((?:^|[.!?]\ |\.["]\ )"?)([a-z])""", re.VERBOSE)


@dataclass(frozen=True)
class Story:
    """A told story with what it was made of."""

    text: str
    plot: str
    cast: Cast


def compose_story(rng: random.Random, plots: Sequence[Plot] | None = None) -> Story:
    """Draws a plot and its cast, and tells it.

    Args:
        rng (`random.Random`): the only source of chance.
        plots (`Sequence[Plot]`, *optional*): to draw from; all of the grammar's if `None`.

    Returns:
        `Story`: its text (a line end after each paragraph), its plot's name and its cast.
    """
    plot = rng.choice(plots or embedded_grammar().plots)
    cast = plot.draw_cast(rng)
    break_chance = rng.choice(BREAK_CHANCES)
    text = ""
    for part in _tell_beats(plot.beats, cast, rng):
        text += ("\n" if rng.random() < break_chance else " ") + part
    return Story(text.strip(), plot.name, cast)


def _tell_beats(beats: Sequence[Beat], cast: Cast, rng: random.Random) -> Iterator[str]:
    """One wording of each beat, with all marks replaced: whole sentences."""
    for wordings in expand_fork(beats, cast):
        yield begin_sentences(realise(rng.choice(wordings), cast, rng))


def expand_fork(beats: Sequence[Beat], cast: Cast) -> Iterator[Sequence[str]]:
    """The wordings of each beat, with the branch that was drawn in place of a fork."""
    for beat in beats:
        if isinstance(beat, Fork):
            yield from expand_fork(beat.branches[cast[beat.role]], cast)
        else:
            yield beat


def begin_sentences(text: str) -> str:
    """Begins each sentence with a capital letter."""
    return _SENTENCE_START.sub(lambda match: match[1] + match[2].upper(), text)


def realise(text: str, cast: Cast, rng: random.Random) -> str:
    """Replaces all marks; facts and phrases may hold marks of their own."""
    phrases = embedded_grammar().phrases
    while True:
        before = text
        text = PHRASE.sub(lambda match: rng.choice(phrases[match[1]]), text)
        text = CHOICE.sub(lambda match: rng.choice(match[1].split("|")), text)
        if "{" in text:
            text = text.format_map(cast)
        if text == before:
            return text


def tell_story(rng: random.Random, plots: Sequence[Plot] | None = None) -> str:
    """The text of one story; see `compose_story`."""
    return compose_story(rng, plots).text


def tell_stories(num_stories: int, seed: int = 0, num_plots: int | None = None) -> Iterator[str]:
    """Tells distinct stories, the same on every machine; those of a smaller corpus begin a larger one.

    Args:
        num_stories (`int`): how many, >= 0.
        seed (`int`): another seed gives another corpus.
        num_plots (`int`, *optional*): with the first so many plots only; with all if `None`.

    Returns:
        `Iterator[str]`: story i depends on `(seed, num_plots, i)` only; one told before is drawn again.

    Raises:
        ValueError: if `num_stories` is negative.
    """
    if num_stories < 0:
        raise ValueError(f"num_stories must be at least 0, got {num_stories}.")
    # Not the seeds of a corpus of all plots, some of whose stories would be told again.
    corpus = f"{seed}" if num_plots is None else f"{seed}/{num_plots} plots"
    return _distinct_stories(num_stories, corpus, embedded_grammar().plots[:num_plots])


def _distinct_stories(num_stories: int, corpus: str, plots: Sequence[Plot]) -> Iterator[str]:
    told: set[bytes] = set()
    for index in range(num_stories):
        for attempt in itertools.count():
            text = tell_story(random.Random(f"{corpus}/{index}/{attempt}"), plots)
            digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
            if digest not in told:
                break
        told.add(digest)
        yield text
