"""Stories that were asked for: they have what was asked, and are as grammatical as the others."""

import random
import re

import pytest

from grammar_checks import UNGRAMMATICAL, find_unbalanced, offenders
from mosaic_lab.babistories import frames
from mosaic_lab.babistories.cleaning import clean_story
from mosaic_lab.babistories.ideas import fits_gender, gender_of, grammar_names, grammar_openings
from mosaic_lab.babistories.prompted import compose_prompted, tell_prompted
from mosaic_lab.babistories.prompts import FEATURES, StoryPrompt, draw_prompt
from mosaic_lab.stories.grammar import PLOTS, Story, compose_story
from mosaic_lab.stories.roles import Being
from mosaic_lab.stories.vocabulary import BOY_ANIMALS, BOYS, GIRL_ANIMALS, GIRLS, PET_NAMES

NUM_PROMPTS = 500
GENDER_OF_PRONOUN = {
    **dict.fromkeys(("she", "her", "herself"), "female"),
    **dict.fromkeys(("he", "him", "his", "himself"), "male"),
}


@pytest.fixture(scope="module")
def told() -> list[tuple[StoryPrompt, Story]]:
    names, openings = [*grammar_names(), "Xaver", "Oluwaseun"], grammar_openings(400, seed=0)
    pairs = []
    for index in range(NUM_PROMPTS):
        rng = random.Random(f"prompted/{index}")
        while not fits_gender(prompt := draw_prompt(rng, names, openings)):
            pass
        pairs.append((prompt, compose_prompted(prompt, rng)))
    return pairs


def is_framed(story: Story) -> bool:
    return any(f" - {frame}" in story.text for frame in frames.NEW_BEGINNINGS)


def without_frame(prompt: StoryPrompt, story: Story) -> str:
    """The text after an opening that has no end."""
    if not is_framed(story):
        return story.text
    rest = story.text.removeprefix(f"{prompt.opening.rstrip(',')} - ")
    assert rest != story.text
    return rest[0].upper() + rest[1:]


def pattern_of(frame: str) -> str:
    """What a frame looks like once it is told."""
    parts = re.split(r"(\{[^}]*\}|\[[^\]]*\])", frame)
    pattern = "".join(
        r"[\w', -]{1,60}?" if part.startswith("{")
        else f"(?:{'|'.join(map(re.escape, part[1:-1].split('|')))})" if part.startswith("[")
        else re.escape(part)
        for part in parts
    )  # fmt: skip
    return rf"(?i:{pattern})"


def places(text: str, options: tuple[str, ...]) -> list[int]:
    """Where one of the frames is told."""
    return [match.start() for frame in options for match in re.finditer(pattern_of(frame), text)]


def test_words_are_there(told):
    for prompt, story in told:
        for word in (prompt.verb, prompt.noun, prompt.adjective):
            assert re.search(rf"\b{word}\b", story.text), (word, story.text)


def test_hero_has_the_name_and_its_gender_alone(told):
    everybody = {*GIRLS, *BOYS, *GIRL_ANIMALS, *BOY_ANIMALS, *PET_NAMES}
    for prompt, story in told:
        hero = story.cast["hero"]
        assert hero.name == prompt.name and re.search(rf"\b{prompt.name}\b", story.text)
        assert gender_of(prompt.name) in (None, hero.gender)
        others = [str(value) for role, value in story.cast.items() if role != "hero"]
        assert prompt.name not in others
        assert everybody & set(re.findall(r"[A-Z]\w+", story.text)) <= {prompt.name, *others}
    assert {story.cast["hero"].gender for prompt, story in told if prompt.name == "Xaver"} == {
        "female",
        "male",
    }


def test_stories_begin_with_the_opening(told):
    for prompt, story in told:
        assert re.match(rf"{re.escape(prompt.opening.rstrip(','))}(?!\w)", story.text)
    assert 0 < sum(is_framed(story) for _, story in told) < 0.25 * NUM_PROMPTS


def test_every_feature_is_there_where_it_is_asked_for_and_only_there(told):
    bad, twists, morals = frames.BAD_ENDINGS, frames.TWISTS, frames.MORAL_SENTENCES
    for prompt, story in told:
        text = story.text.replace("\n", " ")
        assert bool(places(text, bad)) == ("bad ending" in prompt.features), text
        assert bool(places(text, twists)) == ("twist" in prompt.features), text
        assert bool(places(text, morals)) == ("moral" in prompt.features), text
        if "moral" in prompt.features:
            assert any(moral in text for moral in frames.MORALS[story.plot])
        if "dialogue" in prompt.features:
            assert text.count('"') >= 4
        if "bad ending" in prompt.features:
            assert re.search(f"(?:{'|'.join(map(pattern_of, bad))})$", text)


def test_hints_come_true_and_conflicts_end(told):
    for prompt, story in told:
        text = story.text.replace("\n", " ")
        for feature, pairs in (("foreshadowing", frames.FORESHADOWING), ("conflict", frames.CONFLICTS)):
            begun = [(places(text, (pair[0],)), pair[1]) for pair in pairs]
            begun = [(found[0], end) for found, end in begun if found]
            assert len(begun) == (feature in prompt.features), text
            if begun:
                solved = not (feature == "conflict" and "bad ending" in prompt.features)
                ends = places(text, (begun[0][1],) if solved else frames.UNSOLVED)
                assert ends and begun[0][0] < 0.6 * len(text) < ends[0] + 60 and begun[0][0] < ends[0], text


def test_pronouns_belong_to_somebody_in_the_story(told):
    for _, story in told:
        present = {role.gender for role in story.cast.values() if isinstance(role, Being)}
        spoken = {GENDER_OF_PRONOUN.get(word) for word in re.findall(r"\w+", story.text.lower())} - {None}
        assert spoken <= present, story.text


@pytest.mark.parametrize("pattern", UNGRAMMATICAL)
def test_nothing_ungrammatical(told, pattern):
    assert offenders([without_frame(*pair) for pair in told], pattern) == []


def test_quotation_marks_balance(told):
    for _, story in told:
        assert find_unbalanced(story.text) == []


def test_no_story_needs_cleaning(told):
    assert [used for _, story in told if (used := clean_story(story.text)[1])] == []


def test_words_that_are_not_known_are_mentioned():
    prompt = StoryPrompt("defenestrate", "scissors", "purple", name="Tom")
    for index in range(20):
        text = compose_prompted(prompt, random.Random(index)).text
        for word in ("defenestrate", "scissors", "purple"):
            assert f'"{word}."' in text
        assert "a scissors" not in text and "purple scissors" not in text
        assert find_unbalanced(text) == []


@pytest.mark.parametrize(
    ("opening", "begins"),
    [
        ("Zebras never", "Zebras never - "),
        ("Zebras, said the,", "Zebras, said the - "),
        ("Can cows fly?", "Can cows fly? "),
    ],
)
def test_other_openings_get_a_frame(opening, begins):
    starts = {compose_prompted(StoryPrompt(opening=opening), random.Random(i)).text[:60] for i in range(8)}
    assert len(starts) > 3 and all(start.startswith(begins) for start in starts)
    if opening.endswith("?"):
        assert all(start[len(begins)].isupper() for start in starts)


def test_one_field_at_a_time():
    """Nothing else changes, and a feature alone is enough."""
    for feature in FEATURES:
        story = compose_prompted(StoryPrompt(features=(feature,)), random.Random(3))
        assert len(story.text) > 300
    assert compose_prompted(StoryPrompt(name="Xaver"), random.Random(3)).cast["hero"].name == "Xaver"


def test_nothing_changes_without_a_prompt():
    for seed in range(50):
        assert compose_prompted(StoryPrompt(), random.Random(seed)) == compose_story(random.Random(seed))


def test_a_story_depends_on_prompt_and_seed_only():
    prompts = [StoryPrompt("jump", "kite", "red", ("twist",), "Tom", "Once"), StoryPrompt(verb="bake")]
    first = list(tell_prompted(prompts, ["a", "b"]))
    assert first == list(tell_prompted(prompts, ["a", "b"]))
    assert list(tell_prompted(prompts[1:], ["b"])) == first[1:]
    assert list(tell_prompted(prompts, ["c", "b"]))[0] != first[0]


def test_quotation_marks_in_an_opening_are_refused():
    with pytest.raises(ValueError, match="opening must have no quotation marks"):
        compose_prompted(StoryPrompt(opening='"Hello'), random.Random(0))


def test_every_plot_has_morals():
    assert set(frames.MORALS) == {plot.name for plot in PLOTS}
