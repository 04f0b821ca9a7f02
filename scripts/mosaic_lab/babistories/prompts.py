"""What a story is asked to be about, and how a language model is asked for it."""

import os
import random
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cache

import yaml
from transformers import PreTrainedTokenizerBase

from mosaic_lab.core.errors import InputError
from mosaic_lab.core.files import reading
from mosaic_lab.core.shipped import shipped
from mosaic_lab.training.story_files import check_unicode, parse_lines

# What a prompt says about each of them.
FEATURES = {
    "dialogue": "it has at least one dialogue",
    "bad ending": "it ends badly",
    "moral": "it teaches a moral",
    "twist": "something unexpected happens, so that there is a plot twist",
    "foreshadowing": "something early in it hints at what happens later",
    "conflict": "there is some conflict in it",
}
# How many features a prompt asks for; each of these is as likely as the others.
NUM_FEATURES = (0, 1, 1, 2, 2, 3)

_WORD = re.compile(r"[^\W\d_](?:[\w'’ -]*\w)?")


@dataclass(frozen=True)
class StoryPrompt:
    """What a story is asked to have; empty fields ask for nothing.

    Args:
        verb (`str`): word to use, as are `noun` and `adjective`.
        features (`tuple[str, ...]`): keys of FEATURES.
        name (`str`): name of the main character.
        opening (`str`): first words of the story.

    Raises:
        ValueError: for a word that is not made of letters, or an unknown feature.
    """

    verb: str = ""
    noun: str = ""
    adjective: str = ""
    features: tuple[str, ...] = ()
    name: str = ""
    opening: str = ""

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, str) and field.name != "features":
                raise ValueError(f"{field.name} must be a string, not {value!r}")
        check_unicode(self.opening)
        for field in ("verb", "noun", "adjective", "name"):
            if (word := getattr(self, field)) and not _WORD.fullmatch(word):
                raise ValueError(f"{field} must be made of letters, not {word!r}")
        object.__setattr__(self, "features", tuple(self.features))
        for feature in self.features:
            if feature not in FEATURES:
                raise ValueError(f"features must be some of {', '.join(FEATURES)}; not {feature!r}")
        object.__setattr__(self, "opening", " ".join(self.opening.split()))

    @property
    def text(self) -> str:
        """The request in plain words."""
        wanted = [("character name", self.name), ("verb", self.verb), ("noun", self.noun)]
        wanted = [f'the {kind} "{word}"' for kind, word in (*wanted, ("adjective", self.adjective)) if word]
        sentences = [
            "Write a short story of 3 to 5 paragraphs with very simple words only, such as a 3 year old "
            "child would understand."
        ]
        if wanted:
            sentences.append(f"The story should use {_enumerate(wanted)}.")
        if self.features:
            features = _enumerate([FEATURES[feature] for feature in self.features])
            sentences.append(f"The story should have these features: {features}.")
        return " ".join([*sentences, "Remember to use simple words only!"])

    def as_record(self) -> dict:
        """The fields as a file holds them."""
        return {**asdict(self), "features": list(self.features)}


@cache
def load_words() -> dict[str, list[str]]:
    """Loads the words to ask for: lists of `verbs`, `nouns` and `adjectives`."""
    return yaml.safe_load((shipped("configuration") / "babistories" / "words.yaml").read_text("utf-8"))


def _enumerate(parts: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))


def as_model_input(tokenizer: PreTrainedTokenizerBase, request: str, opening: str = "") -> str:
    """Builds the text for an instruct model to continue: a request, and the first words of the answer.

    It has the form of the tokenizer's chat template, or of `[INST] {request} [/INST] {opening}` without one.
    """
    if tokenizer.chat_template is None:
        return f"[INST] {request} [/INST] {opening}".rstrip()
    messages = [{"role": "user", "content": request}]
    if not opening:
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    messages.append({"role": "assistant", "content": opening})
    return tokenizer.apply_chat_template(messages, tokenize=False, continue_final_message=True)


def draw_prompt(
    rng: random.Random, names: Sequence[str], openings: Sequence[str], asked: StoryPrompt | None = None
) -> StoryPrompt:
    """Draws a prompt, or what the prompt `asked` lacks: a name and an opening."""
    words = load_words()
    prompt = asked or StoryPrompt(
        rng.choice(words["verbs"]),
        rng.choice(words["nouns"]),
        rng.choice(words["adjectives"]),
        tuple(rng.sample(list(FEATURES), rng.choice(NUM_FEATURES))),
    )
    opening = prompt.opening or rng.choice(openings)
    return replace(prompt, opening=opening, name=prompt.name or rng.choice(names))


def read_prompts(path: str | os.PathLike) -> list[StoryPrompt]:
    """Reads prompts from JSON lines, objects with some of the fields of `StoryPrompt`.

    Raises:
        InputError: for a file that cannot be read, and for a line that is not a prompt.
    """
    prompts = []
    with reading(f"prompts {path}"), open(path, encoding="utf-8") as file:
        for place, record in parse_lines(f"prompts {path}", file):
            try:
                prompts.append(StoryPrompt(**record))
            except (ValueError, TypeError) as error:
                raise InputError(f"prompts {path}, {place}: {error}") from error
    if not prompts:
        raise InputError(f"prompts {path}: holds no prompt")
    return prompts
