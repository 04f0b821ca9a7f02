import random

import numpy as np

from mosaic_lab.babistories.duplicates import find_exact, find_near, normalise, similarity
from mosaic_lab.stories.grammar import tell_stories


def shingles(text):
    words = normalise(text).split()
    return {tuple(words[i : i + 5]) for i in range(max(1, len(words) - 4))}


def test_copies_differ_in_signs_only():
    texts = ["A cat sat.", "a CAT sat!", "A cat sat down.", 'A "cat" sat.']
    assert find_exact(texts).tolist() == [False, True, False, True]
    assert find_exact([]).tolist() == []


def test_similarity_is_the_share_of_common_runs():
    first, second = list(tell_stories(2, seed=1))
    mixed = f"{first} {second}"
    for other in (first, second, mixed):
        expected = len(shingles(first) & shingles(other)) / len(shingles(first) | shingles(other))
        assert similarity(first, other) == expected
    assert similarity("", "") == 1 and similarity("a b", "c d") == 0


def test_finds_what_comparing_all_pairs_finds():
    rng = random.Random(0)
    texts = []
    for story in tell_stories(60, seed=2):
        texts.append(story)
        words = story.split()
        for _ in range(rng.choice((0, 1, 2))):
            changed = list(words)
            for _ in range(rng.choice((1, 2, 8, 30))):
                changed[rng.randrange(len(words))] = "zebra"
            texts.append(" ".join(changed))
    expected: list[bool] = []
    for text in texts:
        kept = (other for other, near in zip(texts, expected, strict=False) if not near)
        expected.append(any(similarity(text, other) >= 0.7 for other in kept))
    assert 20 < sum(expected) < len(texts) - 20
    assert find_near(texts, 0.7).tolist() == expected
    assert find_near(texts, 1.0).sum() == 0
    assert find_near([*texts, texts[0]], 1.0).tolist() == [False] * len(texts) + [True]


def test_few_texts():
    assert find_near([], 0.5).tolist() == [] and find_near(["a"], 0.5).tolist() == [False]
    assert find_near(["a b", "a b", "c"], 0.5).dtype == np.bool_
