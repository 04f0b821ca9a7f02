"""What a story is asked to be about, and how a language model is asked for it."""

import json
import os
import random
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace

from transformers import PreTrainedTokenizerBase

from mosaic_lab.babistories.words import ADJECTIVES, NOUNS, VERBS
from mosaic_lab.core.errors import InputError

# What a prompt says about each of them.
FEATURES = {
    "dialogue": "it has at least one dialogue",
    "bad ending": "it ends badly",
    "moral": "it teaches a moral",
    "twist": "something unexpected happens, so that there is a plot twist",
    "foreshadowing": "something early in it hints at what happens later",
    "conflict": "there is some conflict in it",
}
# As many features as a prompt asks for.
NUM_FEATURES = (0, 1, 1, 2, 2, 3)

_WORD = re.compile(r"[^\W\d_](?:[\w'’ -]*\w)?")


@dataclass(frozen=True)
class StoryPrompt:
    """What a story must have; nothing is asked of what is empty.

    Args:
        verb (`str`): to be used, and so `noun` and `adjective`.
        features (`tuple[str, ...]`): keys of FEATURES.
        name (`str`): of the main character.
        opening (`str`): words that the story begins with.

    Raises:
        ValueError: for a word that is none, or an unknown feature.
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


def _enumerate(parts: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))


def as_model_input(tokenizer: PreTrainedTokenizerBase, request: str, opening: str = "") -> str:
    """The text for an instruct model to continue: a request, and the first words of the answer.

    Has the form of the tokenizer's chat template, or of `[INST] {request} [/INST] {opening}` without one.
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
    """A prompt of words that small children know, or one that is asked for with a name and an opening."""
    prompt = asked or StoryPrompt(
        rng.choice(VERBS),
        rng.choice(NOUNS),
        rng.choice(ADJECTIVES),
        tuple(rng.sample(list(FEATURES), rng.choice(NUM_FEATURES))),
    )
    opening = prompt.opening or rng.choice(openings)
    return replace(prompt, opening=opening, name=prompt.name or rng.choice(names))


def read_prompts(path: str | os.PathLike) -> list[StoryPrompt]:
    """The prompts of a file of JSON lines, objects with some of the fields of `StoryPrompt`.

    Raises:
        InputError: for a file that cannot be read, and for a line that is no prompt.
    """
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().split("\n")
    except OSError as error:
        raise InputError(f"prompts {path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"prompts {path}: not text in UTF-8: {error.reason}") from error
    prompts = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                prompts.append(StoryPrompt(**json.loads(line)))
            except (ValueError, TypeError) as error:
                raise InputError(f"prompts {path}, line {number}: {error}") from error
    if not prompts:
        raise InputError(f"prompts {path}: holds no prompt")
    return prompts
