import math

import numpy as np
import pytest
from training.bigram import bigram_loss


def reference(train, validation, vocab_size):
    """The same model with dictionaries."""
    counts = {}
    for row in train:
        for pair in zip(row[:-1], row[1:], strict=True):
            counts[pair] = counts.get(pair, 0) + 1
    once, twice = (sum(count == n for count in counts.values()) for n in (1, 2))
    discount = once / (once + 2 * twice)

    def unigram(b):
        return (sum(after == b for _, after in counts) + 1) / (len(counts) + vocab_size)

    def bigram(a, b):
        total = sum(count for (before, _), count in counts.items() if before == a)
        if total == 0:
            return unigram(b)
        distinct = sum(before == a for before, _ in counts)
        return max(counts.get((a, b), 0) - discount, 0) / total + discount * distinct / total * unigram(b)

    for a in range(vocab_size):
        assert sum(bigram(a, b) for b in range(vocab_size)) == pytest.approx(1)
    losses = [-math.log(bigram(a, b)) for row in validation for a, b in zip(row[:-1], row[1:], strict=True)]
    return sum(losses) / len(losses)


def test_equals_the_slow_reference():
    rng = np.random.default_rng(0)
    train, validation = rng.geometric(0.3, (12, 15)) % 17, rng.integers(0, 20, (4, 9))
    assert bigram_loss(train, validation, 20) == pytest.approx(
        reference(train.tolist(), validation.tolist(), 20)
    )


def test_knows_what_follows():
    alternating = np.tile([0, 1], (50, 16))
    assert bigram_loss(alternating, alternating, 2) < 0.02
    noise = np.random.default_rng(0).integers(0, 32, (400, 64))
    assert bigram_loss(noise[:300], noise[300:], 32) == pytest.approx(math.log(32), rel=0.03)


def test_gpt2_sized_vocabulary_does_not_overflow():
    ids = np.array([[50256, 50255, 50256]], dtype=np.int32)
    assert 0 < bigram_loss(ids, ids, 50257) < math.log(50257)
