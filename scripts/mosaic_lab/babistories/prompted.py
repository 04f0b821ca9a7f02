"""Stories of the grammar that have what a prompt asks for."""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from mosaic_lab.babistories.ideas import gender_of
from mosaic_lab.babistories.prompts import StoryPrompt
from mosaic_lab.stories import frames, words
from mosaic_lab.stories.grammar import BREAK_CHANCES, PLOTS, Story, compose_story, join_parts, tell_beats
from mosaic_lab.stories.roles import Being, Cast, Plot, with_article

# Casts and first sentences to draw in search of an opening, before it gets a frame.
MAX_DRAWS = 400
_SENTENCE_GAP = re.compile(r"(?<=[.!?]) ")
# A sentence that takes up the one before it, so that nothing can stand between them.
_LEANS_BACK = re.compile(
    r"\"|(?:He|She|It|They|His|Her|Their|This|That|There|Then|Now|So|But|And|At|All|Suddenly|Just|Both|Only)\b"
    r"|[^.!?]*\b(?:it|them|that)\b"
)


@dataclass
class _Wishes:
    """What is woven into a story: after the hero is introduced, and at the end."""

    early: list[str]
    late: list[str]


def compose_prompted(prompt: StoryPrompt, rng: random.Random) -> Story:
    """A story with the prompt's words, features, name and opening; `compose_story`'s without any of them.

    A name of the grammar keeps its gender. An opening with which no story in a few hundred begins is put in
    front of one. Words that the grammar does not know are mentioned as words.

    Args:
        prompt (`StoryPrompt`): what is asked.
        rng (`random.Random`): the only source of chance.

    Returns:
        `Story`: its text, its plot's name and its cast.

    Raises:
        ValueError: for an opening with quotation marks, which a story could not close.
    """
    if prompt == StoryPrompt():
        return compose_story(rng)
    if '"' in prompt.opening:
        raise ValueError(f"opening must have no quotation marks, unlike {prompt.opening!r}")
    plot, cast, parts = _begin(prompt, rng)
    wishes = _Wishes([], [])
    _wish_for_words(prompt, rng, wishes)
    cast = {**cast, **_wish_for_features(prompt, plot, " ".join(parts), rng, wishes)}
    cast |= {"verb": _as_deed(prompt.verb), "thing": _as_thing(prompt)}
    early = " ".join(tell_beats([(text,) for text in wishes.early], cast, rng))
    late = list(tell_beats([(text,) for text in wishes.late], cast, rng))
    if early:
        _insert(parts, early, str(cast["hero"]))
    return Story(join_parts([*parts, *late], rng, rng.choice(BREAK_CHANCES)), plot.name, cast)


def _begin(prompt: StoryPrompt, rng: random.Random) -> tuple[Plot, Cast, list[str]]:
    """A plot, its cast and its parts, the first of which begins with the opening."""
    for _ in range(MAX_DRAWS if prompt.opening else 1):
        plot, cast = _draw_cast(prompt, rng)
        parts = tell_beats(plot.beats, cast, rng)
        first = next(parts)
        if re.match(rf"{re.escape(prompt.opening)}(?!\w)", first):
            return plot, cast, [first, *parts]
    if not prompt.opening:
        return plot, cast, [first, *parts]
    return plot, cast, [f"{_as_beginning(prompt.opening, rng)} {first}", *parts]


def _as_beginning(opening: str, rng: random.Random) -> str:
    frame = rng.choice(frames.NEW_BEGINNINGS)
    if opening[-1] in ".!?":
        return f"{opening} {frame[0].upper()}{frame[1:]}"
    return f"{opening.rstrip(',;: ')} - {frame}"


def _draw_cast(prompt: StoryPrompt, rng: random.Random) -> tuple[Plot, Cast]:
    """A plot and a cast whose hero can have the prompt's name, which nobody else has."""
    while True:
        plot = rng.choice(PLOTS)
        cast: Cast = {}
        for role, draw in plot.roles.items():
            cast[role] = draw(rng, cast)
            if role == "hero" and prompt.name:
                cast[role] = replace(cast[role], name=prompt.name)
        others = {str(value).lower() for role, value in cast.items() if role != "hero"}
        fits = gender_of(prompt.name) in (None, cast["hero"].gender)
        if fits and str(cast["hero"]).lower() not in others:
            return plot, cast


def _insert(parts: list[str], text: str, hero: str) -> None:
    """Puts `text` where the hero is known and no sentence is torn from one that it takes up."""
    introduced = next(place for place, part in enumerate(parts) if hero in part)
    for place in range(introduced, min(introduced + 3, len(parts) - 1)):
        part, following = parts[place], parts[place + 1]
        for gap in _SENTENCE_GAP.finditer(part):
            head, tail = part[: gap.start()], part[gap.end() :]
            if hero in head and head.count('"') % 2 == 0 and not _LEANS_BACK.match(tail):
                parts[place] = f"{head} {text} {tail}"
                return
        is_first_speech = following.startswith('"') and '"' not in part
        if is_first_speech or not _LEANS_BACK.match(following):
            parts.insert(place + 1, text)
            return
    parts.insert(introduced + 1, text)


def _wish_for_words(prompt: StoryPrompt, rng: random.Random, wishes: _Wishes) -> None:
    kind = _kind_of_thing(prompt)
    has_verb, has_noun = prompt.verb in words.VERBS, prompt.noun in words.NOUNS
    if has_verb and has_noun and kind == "somebody" and rng.random() < 0.3:
        wishes.early.append(rng.choice(frames.LIKED_TO_VERB_WITH_SOMEBODY))
    else:
        if has_verb:
            _choose(rng, wishes, frames.LIKED_TO_VERB, frames.AT_LAST_VERB)
        if has_noun:
            _choose(rng, wishes, *_FRAMES_OF[kind])
    told = (has_verb and prompt.verb, has_noun and prompt.noun, _has_adjective(prompt) and prompt.adjective)
    asked = (prompt.verb, prompt.noun, prompt.adjective)
    unknown = [word for word, is_told in zip(asked, told, strict=True) if word and not is_told]
    for word, frame in zip(unknown, rng.sample(frames.MENTIONED, len(unknown)), strict=True):
        wishes.early.append(frame.replace("{word}", word))


def _choose(rng: random.Random, wishes: _Wishes, early: tuple[str, ...], late: tuple[str, ...]) -> None:
    place, choices = rng.choice(((wishes.early, early), (wishes.late, late)))
    place.append(rng.choice(choices))


_FRAMES_OF = {
    "somebody": (frames.KNEW_SOMEBODY, frames.MET_SOMEBODY),
    "something": (frames.KNEW_SOMETHING, frames.MET_SOMETHING),
    "imagined": (frames.IMAGINED, frames.IMAGINED_LATER),
}


def _kind_of_thing(prompt: StoryPrompt) -> str:
    is_being = prompt.noun in words.BEINGS
    fitting = words.ADJECTIVES_FOR_BEINGS if is_being else words.ADJECTIVES_FOR_THINGS
    if prompt.adjective in (*fitting, *words.ADJECTIVES_FOR_ALL) or not _has_adjective(prompt):
        return "somebody" if is_being else "something"
    return "imagined"


def _has_adjective(prompt: StoryPrompt) -> bool:
    """Whether noun and adjective can be told of together."""
    return prompt.noun in words.NOUNS and prompt.adjective in words.ADJECTIVES


def _as_thing(prompt: StoryPrompt) -> str:
    if prompt.noun not in words.NOUNS:
        return ""
    return with_article(f"{prompt.adjective} {prompt.noun}" if _has_adjective(prompt) else prompt.noun)


def _as_deed(verb: str) -> str:
    return f"{verb} {words.VERBS_WITH_OBJECT[verb]}" if verb in words.VERBS_WITH_OBJECT else verb


def _wish_for_features(
    prompt: StoryPrompt, plot: Plot, told: str, rng: random.Random, wishes: _Wishes
) -> Cast:
    """Adds the features; returns who and what they need besides the cast."""
    features = set(prompt.features)
    roles: Cast = {}
    if "foreshadowing" in features:
        hint, outcome = rng.choice(frames.FORESHADOWING)
        wishes.early.append(hint)
        wishes.late.append(outcome)
    if "conflict" in features:
        foe = rng.choice([kind for kind in frames.FOES if kind not in f"{told} {prompt.noun}"])
        roles["foe"] = Being(f"the {foe}", foe, "neuter", rng.choice(frames.FOE_TRAITS))
        begins, ends = rng.choice(frames.CONFLICTS)
        wishes.early.append(begins)
        wishes.late.append(rng.choice(frames.UNSOLVED) if "bad ending" in features else ends)
    if "dialogue" in features and told.count('"') < 4:
        wishes.late.append(rng.choice(frames.DIALOGUES))
    if "twist" in features:
        wishes.late.append(rng.choice(frames.TWISTS))
    if "moral" in features:
        roles["moral"] = rng.choice(frames.MORALS[plot.name])
        wishes.late.append(rng.choice(frames.MORAL_SENTENCES))
    if "bad ending" in features:
        wishes.late.append(rng.choice(frames.BAD_ENDINGS))
    return roles


def tell_prompted(prompts: list[StoryPrompt], seeds: list[str]) -> Iterator[str]:
    """The text of a story for each prompt, which depends on the prompt and its seed only."""
    for prompt, seed in zip(prompts, seeds, strict=True):
        yield compose_prompted(prompt, random.Random(seed)).text
