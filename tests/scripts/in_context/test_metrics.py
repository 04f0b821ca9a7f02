import numpy as np
import pytest
import torch

from modeling_mosaic import MosaicConfig, MosaicForCausalLM
from mosaic_lab.in_context.metrics import accuracy_of, count_right
from mosaic_lab.in_context.report import NUM_BARS, split_by_place
from mosaic_lab.in_context.rows import NO_ANSWER, Rows


def test_counts_are_those_of_single_predictions(monkeypatch):
    """Each answer predicted alone, from the tokens before it, and whatever the number of rows at a time."""
    torch.manual_seed(0)
    config = MosaicConfig(vocab_size=4, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    model = MosaicForCausalLM(config).eval()
    ids = torch.randint(4, (5, 12))
    places = torch.randint(3, (5, 12)).where(torch.rand(5, 12) < 0.4, NO_ANSWER)
    places[:, 0] = NO_ANSWER
    number, right = np.zeros(3, int), np.zeros(3, int)
    for row, at in torch.argwhere(places != NO_ANSWER).tolist():
        likeliest = model(ids[row : row + 1, :at]).logits[0, -1].argmax()
        number[places[row, at]] += 1
        right[places[row, at]] += likeliest == ids[row, at]
    for tokens in (24, 10_000):
        monkeypatch.setattr("mosaic_lab.in_context.metrics.TOKENS_AT_ONCE", tokens)
        counts = count_right(model, Rows(ids, places))
        assert np.array_equal(counts[0], number) and np.array_equal(counts[1], right)
    assert accuracy_of(counts) == right.sum() / number.sum()


def test_bars_hold_all_answers_of_their_places():
    rng = np.random.default_rng(0)
    number = rng.integers(4, 20, size=192)
    right = rng.integers(4, size=192)
    places, accuracy = split_by_place(number, right)
    assert len(places) == NUM_BARS
    for bar in range(NUM_BARS):
        inside = np.arange(bar * 24, (bar + 1) * 24)
        assert accuracy[bar] == right[inside].sum() / number[inside].sum()
        assert places[bar] == pytest.approx(np.average(inside, weights=number[inside]))
    # Few places have a bar each, unless they have few answers.
    places, accuracy = split_by_place(np.array([0, 100, 50, 2]), np.array([0, 20, 50, 1]))
    assert places.tolist() == [1, 2] and accuracy.tolist() == [0.2, 1]
