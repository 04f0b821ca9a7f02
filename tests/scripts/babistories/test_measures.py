import re

import pytest
from transformers import GPT2Tokenizer

from mosaic_lab.babistories.measures import count_distinct_grams, measure_losses, measure_split
from mosaic_lab.core.errors import InputError
from mosaic_lab.stories.grammar import tell_stories


@pytest.fixture(scope="module")
def stories():
    return list(tell_stories(120))


@pytest.fixture(scope="module")
def tokenizer(stories):
    return GPT2Tokenizer().train_new_from_iterator(stories, 320, show_progress=False)


def test_sizes_of_a_split(tokenizer):
    texts = ["A cat.", "A dog sat."]
    num_tokens = sum(len(tokenizer(text)["input_ids"]) + 1 for text in texts)
    assert measure_split(texts, tokenizer) == {"stories": 2, "tokens": num_tokens, "mean_characters": 8.0}


def test_distinct_grams_within_stories(stories, monkeypatch):
    assert count_distinct_grams(["A cat sat down.", "a b", "A cat sat down, too."]) == 5
    grams = set()
    for story in stories:
        words = re.findall(r"[^\W\d_](?:[\w'’]*\w)?|[^\s\w]", story)
        grams.update(zip(words, words[1:], words[2:], words[3:], strict=False))
    assert count_distinct_grams(stories) == len(grams)
    monkeypatch.setattr("mosaic_lab.babistories.measures._MERGE_AFTER", 1000)
    assert count_distinct_grams(stories) == len(grams)


def test_longer_contexts_have_lower_losses(stories, tokenizer, monkeypatch):
    losses = measure_losses(stories[:100], stories[100:], tokenizer, 64)
    assert list(losses) == ["2", "3", "5"]
    assert 5.8 > losses["2"] > losses["3"] > losses["5"] > 0
    monkeypatch.setattr("mosaic_lab.babistories.measures.NGRAM_TOKENS", 640)
    assert measure_losses(stories[:100], stories[100:], tokenizer, 64)["2"] > losses["2"]


def test_too_few_stories_are_named(tokenizer):
    with pytest.raises(InputError, match="do not fill one row of block_size 512"):
        measure_losses(["A cat."], ["A dog."], tokenizer, 512)
