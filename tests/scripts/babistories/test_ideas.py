import random
from collections import Counter

from mosaic_lab.babistories.ideas import (
    fits_gender,
    gender_of,
    grammar_names,
    grammar_openings,
    parse_names,
    parse_openings,
)
from mosaic_lab.babistories.prompts import StoryPrompt
from mosaic_lab.stories.grammar import compose_story


def test_names_are_short_items_of_a_list():
    answers = [
        "Sure!\n1. Ann\n2. Chloé\n3. Alexander\n4) Tom\n 5. Kim\n10. Mia",
        "1. Ann\n7. Mary Ann\n8. X2",
    ]
    # "1. Name" and the line's end are nine characters with a name of five letters.
    assert parse_names(answers) == ["Ann", "Mia"]
    assert parse_names(["1. Sara\n10. Sara\n"]) == ["Sara"]
    assert parse_names(["10. Sara\n"]) == []


def test_openings_are_all_beginnings_of_sentences_without_dots():
    answer = "Here they are:\n1. One day...\n2. Mr. Fox ran\n12) It was… cold.\nThe end"
    assert parse_openings([answer, answer]) == sorted(
        ["One", "One day", "Mr", "Mr Fox", "Mr Fox ran", "It", "It was", "It was cold"]
    )
    words = [f"w{number}" for number in range(20)]
    assert max(len(opening.split()) for opening in parse_openings([f"1. {' '.join(words)}"])) == 12
    assert parse_openings(['1. "Hello!" said Tom', "2. A (small) cat", "3. a_b"]) == []


def test_openings_of_the_grammar_begin_its_stories_and_hold_no_name():
    openings = grammar_openings(300, seed=5)
    stories = [compose_story(random.Random(f"5/openings/{index}")).text for index in range(300)]
    assert all(any(story.startswith(opening) for story in stories) for opening in set(openings))
    assert {len(opening.split()) for opening in openings} == set(range(1, 13))
    assert not {word for opening in openings for word in opening.split()} & set(grammar_names())
    # What begins more stories is drawn more often.
    counts = Counter(openings)
    assert counts["Once"] == sum(story.split()[0] == "Once" for story in stories)
    assert grammar_openings(300, seed=6) != openings


def test_names_and_openings_agree():
    assert (gender_of("Lily"), gender_of("Tom"), gender_of("Xaver")) == ("female", "male", None)
    for opening, name, fits in (
        ("Once a girl named", "Tom", False),
        ("Once a girl named", "Lily", True),
        ("He had a", "Lily", False),
        ("He had a", "Tom", True),
        ("The old", "Tom", True),
        ("Once a girl named", "Xaver", True),
    ):
        assert fits_gender(StoryPrompt(name=name, opening=opening)) == fits
