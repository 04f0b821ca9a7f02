import numpy as np
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
    arrays = {}
    for count, size in ((2, 150), (4, 190)):
        arrays[f"number_200_{count}"] = rng.integers(4, 20, size=size)
        arrays[f"right_200_{count}"] = rng.integers(4, size=size)
    places, accuracy = split_by_place(arrays, 200, [2, 4])
    assert len(places) == NUM_BARS
    width = 200 // NUM_BARS
    for bar in range(NUM_BARS):
        inside = slice(bar * width, (bar + 1) * width)
        number, right = (
            sum(arrays[f"{name}_200_{count}"][inside].sum() for count in (2, 4))
            for name in ("number", "right")
        )
        assert accuracy[bar] == right / number and inside.start <= places[bar] < inside.stop
    few = {"number_200_2": np.array([0, 100, 50, 2]), "right_200_2": np.array([0, 20, 50, 1])}
    places, accuracy = split_by_place(few, 200, [2])
    assert places.tolist() == [1, 2] and accuracy.tolist() == [0.2, 1]
