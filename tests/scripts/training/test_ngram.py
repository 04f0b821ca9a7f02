import math
from collections import Counter

import numpy as np
import pytest

from mosaic_lab.training.ngram import ngram_loss


class Reference:
    """The same model with dictionaries, after the equations of `ngram_loss`."""

    def __init__(self, rows, vocab_size, order):
        self.vocab_size, self.counts = vocab_size, {order: Counter(self.grams(rows, order))}
        for k in range(1, order):
            self.counts[k] = Counter(gram[1:] for gram in set(self.grams(rows, k + 1)))

    @staticmethod
    def grams(rows, k):
        return [tuple(row[i : i + k]) for row in rows for i in range(len(row) - k + 1)]

    def discount(self, k):
        once, twice = (sum(count == n for count in self.counts[k].values()) for n in (1, 2))
        return once / (once + 2 * twice) if once else 0.5

    def probability(self, history, token):
        k = len(history) + 1
        counts = self.counts[k]
        if k == 1:
            return (counts[(token,)] + 1) / (sum(counts.values()) + self.vocab_size)
        after = {gram: count for gram, count in counts.items() if gram[:-1] == history}
        shorter = self.probability(history[1:], token)
        if not after:
            return shorter
        total, discount = sum(after.values()), self.discount(k)
        seen = max(after.get((*history, token), 0) - discount, 0) / total
        return seen + discount * len(after) / total * shorter


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_equals_the_slow_reference(order):
    rng = np.random.default_rng(0)
    train, validation = rng.geometric(0.4, (12, 15)) % 7, rng.geometric(0.3, (4, 9)) % 10
    reference = Reference(train.tolist(), 10, order)
    losses = []
    for row in validation.tolist():
        for t in range(1, len(row)):
            history = tuple(row[max(0, t - order + 1) : t])
            if t % 4 == 0:
                assert sum(reference.probability(history, token) for token in range(10)) == pytest.approx(1)
            losses.append(-math.log(reference.probability(history, row[t])))
    assert ngram_loss(train, validation, 10, order) == pytest.approx(sum(losses) / len(losses))


def test_knows_what_follows():
    alternating = np.tile([0, 1], (50, 16))
    assert ngram_loss(alternating, alternating, 2, order=2) < 0.02
    noise = np.random.default_rng(0).integers(0, 32, (400, 64))
    assert ngram_loss(noise[:300], noise[300:], 32, order=2) == pytest.approx(math.log(32), rel=0.03)


def test_longer_contexts_help_where_they_matter():
    """What follows 0 depends on the token before it."""
    pieces = np.array([[1, 0, 2], [3, 0, 4]])
    rows = pieces[np.random.default_rng(0).integers(0, 2, (60, 8))].reshape(60, -1)
    bigram, trigram = (ngram_loss(rows[:40], rows[40:], 5, order) for order in (2, 3))
    assert trigram < 0.7 * bigram


def test_large_vocabularies_do_not_overflow():
    ids = np.array([[50256, 50255, 50256, 50254, 50255, 50256]], dtype=np.int32)
    for order in (2, 3, 5):
        assert 0 < ngram_loss(ids, ids, 50257, order) < math.log(50257)


def test_rows_shorter_than_the_order():
    ids = np.array([[1, 2], [2, 1]])
    assert ngram_loss(ids, ids, 3, order=5) == ngram_loss(ids, ids, 3, order=3)


def test_order_is_checked():
    with pytest.raises(ValueError, match="order must be at least 1, got 0"):
        ngram_loss(np.zeros((1, 2)), np.zeros((1, 2)), 3, order=0)
