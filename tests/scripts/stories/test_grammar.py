"""The embedded stories: the same everywhere, distinct, grammatical, and consistent with their cast."""

import os
import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from grammar_checks import UNGRAMMATICAL, find_unbalanced, offenders
from mosaic_lab.stories.grammar import Story, compose_story, tell_stories, tell_story
from mosaic_lab.stories.loading import embedded_grammar
from mosaic_lab.stories.names import list_names
from mosaic_lab.stories.roles import Being, Item, with_article

NUM_STORIES = 5_000
PLOTS, TABLES = embedded_grammar().plots, embedded_grammar().tables
NAMES = list_names()
# Of `tell_stories(200, seed=7)`. Figures in the documentation are those of these stories.
DIGEST = "2d3b9ac4a827c67462c35f8ec78ac01f4481ccd0ba782ad6ae11f485f284542d"
GENDER_OF_PRONOUN = {
    **dict.fromkeys(("she", "her", "herself"), "female"),
    **dict.fromkeys(("he", "him", "his", "himself"), "male"),
}
SCRIPTS = Path(__file__).parents[3] / "scripts"
DIGEST_PROGRAM = """
import hashlib
from mosaic_lab.stories.grammar import tell_stories
print(hashlib.sha256("|".join(tell_stories(200, seed=7)).encode()).hexdigest())
"""


@pytest.fixture(scope="module")
def stories() -> list[Story]:
    return [compose_story(random.Random(f"test/{index}")) for index in range(NUM_STORIES)]


def beings(story: Story) -> list[Being]:
    return [role for role in story.cast.values() if isinstance(role, Being)]


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_same_stories_in_every_process(hash_seed):
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(SCRIPTS)}
    told = subprocess.run(
        [sys.executable, "-c", DIGEST_PROGRAM], env=environment, capture_output=True, text=True, check=True
    )
    assert told.stdout.strip() == DIGEST


def test_smaller_corpus_begins_larger_one_and_seeds_differ():
    larger = list(tell_stories(100, seed=3))
    assert list(tell_stories(40, seed=3)) == larger[:40]
    assert not set(larger) & set(tell_stories(100, seed=4))


def test_story_comes_from_its_generator_only():
    random.seed(0)
    first = tell_story(random.Random(5))
    random.seed(1)
    assert tell_story(random.Random(5)) == first


def test_stories_are_distinct():
    assert len(set(tell_stories(NUM_STORIES))) == NUM_STORIES


def test_a_repeated_story_is_drawn_anew(monkeypatch):
    monkeypatch.setattr(
        "mosaic_lab.stories.grammar.tell_story", lambda rng, plots: f"Story {rng.randrange(50)}."
    )
    told = list(tell_stories(40))
    assert len(told) == len(set(told)) == 40


def test_few_plots():
    plots = embedded_grammar().plots[:2]
    told = {compose_story(random.Random(seed), plots).plot for seed in range(20)}
    assert told == {plot.name for plot in plots}
    assert not set(tell_stories(100, num_plots=1)) & set(tell_stories(1000))


def test_negative_number_is_refused_at_once():
    with pytest.raises(ValueError, match="num_stories.*-1"):
        tell_stories(-1)


def test_every_plot_is_told(stories):
    told = Counter(story.plot for story in stories)
    assert len(PLOTS) >= 20
    assert set(told) == {plot.name for plot in PLOTS}
    assert min(told.values()) > NUM_STORIES / len(PLOTS) / 2


def test_length(stories):
    lengths = [len(story.text.split()) for story in stories]
    assert 80 <= min(lengths) and max(lengths) <= 250
    assert sum(length <= 200 for length in lengths) > 0.95 * NUM_STORIES


@pytest.mark.parametrize("pattern", UNGRAMMATICAL)
def test_nothing_ungrammatical(stories, pattern):
    assert offenders([story.text for story in stories], pattern) == []


def test_articles_of_the_checker():
    assert with_article("old ring") == "an old ring"
    assert with_article("red ring") == "a red ring"


def test_quotation_marks_balance_and_alternate(stories):
    for story in stories:
        assert find_unbalanced(story.text) == []


def test_pronouns_belong_to_somebody_in_the_story(stories):
    """A story about Lily and her mother has no "he"."""
    genders = [{being.gender for being in beings(story)} for story in stories]
    assert sum(len(found & {"female", "male"}) == 1 for found in genders) > 500
    for story, present in zip(stories, genders, strict=True):
        told = {GENDER_OF_PRONOUN.get(word) for word in re.findall(r"\w+", story.text.lower())} - {None}
        assert told <= present, story.text


def test_names_belong_to_the_cast_and_are_introduced_by_the_narrator(stories):
    for story in stories:
        cast_names = {being.name for being in beings(story)} | {story.cast.get("pet")}
        named = NAMES & set(re.findall(r"[A-Z]\w+", story.text))
        assert named <= {str(name) for name in cast_names}, story.text
        assert str(story.cast["hero"]) in named
        narration = re.sub(r'"[^"]*"', lambda quotation: "_" * len(quotation[0]), story.text)
        for name in named:
            assert (
                re.search(rf"\b{name}\b", narration).start() == re.search(rf"\b{name}\b", story.text).start()
            )


def test_things_return(stories):
    """A thing drawn for a story is told of at least twice."""
    for story in stories:
        for thing in (role for role in story.cast.values() if isinstance(role, Item)):
            assert story.text.count(thing.noun) >= 2, story.text


def test_helper_can_do_what_the_trap_asks_and_gets_what_was_packed(stories):
    told = [story for story in stories if story.plot == "stuck toy"]
    for story in told:
        helper, wrong, trap = (story.cast[role] for role in ("helper", "wrong", "trap"))
        assert helper.facts.skill in trap.skills and wrong.facts.skill not in trap.skills
        assert story.text.index(helper.facts.food) < story.text.index(helper.name)
        assert story.text.rindex(helper.facts.food) > story.text.index(helper.name)


def test_ending_follows_from_the_beginning(stories):
    """The plant that somebody was sure of is another one exactly where the plot has a twist."""
    for story in (story for story in stories if story.plot == "seed"):
        twist = story.cast["end"] == "twist"
        assert twist == (story.cast["hoped"].plant in story.text.lower())
        assert story.cast["plant"].plant in story.text.lower()


def test_enough_to_learn(stories):
    words: set[str] = set()
    four_grams: set[tuple[str, ...]] = set()
    for story in stories:
        tokens = re.findall(r"[A-Za-z']+|[^\sA-Za-z]", story.text)
        words.update(token.lower() for token in tokens if token[0].isalpha())
        four_grams.update(zip(tokens, tokens[1:], tokens[2:], tokens[3:], strict=False))
    assert len(words) > 1_500
    assert len(four_grams) > 120_000
