"""Models in double precision, and memories of random texts."""

from random import Random

import pytest

from memory_texts import draw_text
from modeling_mosaic import read_tokens


@pytest.fixture
def make_model(make_model):
    """Models in double precision: rounding, other in each kernel, never decides between two tokens."""
    return lambda **fields: make_model(**fields).double()


@pytest.fixture
def model(make_model):
    return make_model()


@pytest.fixture
def take(model):
    """A memory of random texts of the given lengths, whose characters are its tokens, and their ids."""

    def make(*lengths, model=model, seed=0, **options):
        texts = [
            draw_text(Random(seed + number), f"text {number}", size) for number, size in enumerate(lengths)
        ]
        return read_tokens(model, texts, **options), [list(text.ids) for text in texts]

    return make
