import pytest

from mosaic_lab.babistories.cleaning import (
    CUTS,
    DROPS,
    after_request,
    clean_stories,
    clean_story,
    cut_to_sentence,
    join_paragraphs,
)
from mosaic_lab.stories.grammar import tell_stories

CUT = {
    "##": ["## Words", "### Instruction"],
    "note": ["Note: I used it.", "Notes: none", "Author's note: hm"],
    "words": ["Words: run, cat", "Words used: run", "Key words: run", "Vocabulary: run"],
    "the end": ["The End", "THE END", "The end.", "The end!"],
    "moral of the story": [
        "The moral of the story is that",
        "Moral of the story: be kind",
        "And the lesson of this tale",
    ],
    "moral": ["Moral: be kind", "The moral: be kind", "Moral value: kindness", "Lesson: be kind"],
    "feature": [
        "Conflict: none",
        "Bad ending: he fell",
        "Plot twist: a bird",
        "Dialogue: hello",
        "Foreshadowing: clouds",
        "Theme: cats",
    ],
    "prompt": ["Prompt: more", "Title: The Cat", "Summary: a cat"],
    "user": ["User 0: thanks", "User 12: thanks"],
    "next request": ["[INST] another", "</s>", "<|endoftext|>"],
}
DROPPED = {
    "link": ["See https://x."],
    "rule ==": ["A == b."],
    "rule ---": ["A --- b."],
    "HTML": ["A&nbsp;b.", "&quot;A.&quot;"],
    "sign": [f"A {sign} b." for sign in "\\*#<>%^/@+"],
    "bracket": [f"A {sign} b." for sign in "()[]{}"],
}


@pytest.mark.parametrize(("rule", "marker"), [(rule, mark) for rule in CUTS for mark in CUT[rule]])
def test_markers_end_the_story(rule, marker):
    for between in (" ", "\n\n", "\n"):
        story, used = clean_story(f"A cat sat.{between}{marker}\nMore of it.")
        assert story == "A cat sat."
        assert f"cut at {rule}" in used and not any(name.startswith("dropped") for name in used)


@pytest.mark.parametrize(
    "text",
    [
        "They ran to the end of the lake.",
        "The end of the rope was wet.",
        "He asked his friends: come!",
        "She said these words: go home.",
        'A note was there. It said, "Come!"',
        "So Tom learned a lesson: be kind.",
        "Their conflict was over.",
    ],
)
def test_other_uses_of_the_words_stay(text):
    assert clean_story(f"{text} It was late.") == (f"{text} It was late.", [])


@pytest.mark.parametrize(("rule", "text"), [(rule, text) for rule in DROPS for text in DROPPED[rule]])
def test_strange_stories_are_dropped(rule, text):
    story, used = clean_story(f"A cat sat. {text}")
    assert story is None and any(name.startswith("dropped: ") for name in used)
    assert DROPS[rule].search(text) and (rule == "sign" or used[-1] == f"dropped: {rule}")


def test_the_end_may_lack_its_dot():
    assert clean_story("A cat sat. The end\n")[0] == "A cat sat."


def test_the_story_comes_after_the_request():
    assert after_request("[INST] Write (3-5)! [/INST] A cat sat.") == "A cat sat."
    assert clean_story("[INST] Note: (3-5) [/INST] A cat sat.") == ("A cat sat.", [])
    assert clean_story("[INST] a [/INST] A cat. [INST] b [/INST] A dog.")[0] == "A cat."


def test_paragraphs_are_joined_and_line_ends_stay():
    assert join_paragraphs("A.\n\nB.\n \n\nC.\nD.") == "A. B. C.\nD."
    assert clean_story("  A.\n\nB.\nC. \n") == ("A. B.\nC.", [])


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("A cat sat. It", "A cat sat."),
        ('A cat sat. "Oh!" it said. "I am', 'A cat sat. "Oh!" it said.'),
        ('A cat sat. "I am big. I am', "A cat sat."),
        ("A cat sat! Mr", "A cat sat!"),
        ("A cat costs 3.50 and", ""),
        ("A cat", ""),
        ('A "cat sat.', 'A "cat sat.'),
        ('He said, "Go."', 'He said, "Go."'),
    ],
)
def test_what_was_not_finished_is_cut_back(text, whole):
    assert cut_to_sentence(text) == whole


def test_rules_are_counted():
    stories, counts = clean_stories(["A. Note: b.", "A. b", "A", "", "A (b).", "A."])
    assert stories == ["A.", "A.", None, None, None, "A."]
    assert counts == {
        "cut at note": 1,
        "cut to whole sentences": 1,
        "dropped: no sentence": 1,
        "dropped: empty": 1,
        "dropped: bracket": 1,
    }


def test_good_stories_stay_as_they_are():
    for story in tell_stories(300):
        assert clean_story(story) == (story, [])
