import numpy as np
import pytest

from mosaic_lab.evaluation.intervals import bootstrap_weights
from mosaic_lab.evaluation.losses import sequence_losses
from mosaic_lab.evaluation.probes import measure_halves, measure_induction, repeat_segments
from mosaic_lab.training.tokenizer import load_tokenizer

CHANCE, SURE = np.log(32), -np.log(0.9)


def test_segments_are_repeated_and_hold_no_special_token():
    tokenizer, _ = load_tokenizer(None, 300, [["a story"]])
    ids = repeat_segments(tokenizer, 20, 30, seed=0)
    assert ids.shape == (20, 61) and (ids[:, 0] == tokenizer.eos_token_id).all()
    assert (ids[:, 1:31] == ids[:, 31:]).all() and not (ids[:, 1:] == tokenizer.eos_token_id).any()
    assert (ids == repeat_segments(tokenizer, 20, 30, seed=0)).all()
    assert (ids != repeat_segments(tokenizer, 20, 30, seed=1)).any()


def test_induction_of_a_model_that_does_nothing_else(repeater):
    rng = np.random.default_rng(0)
    # No token occurs twice in a segment.
    segments = np.stack([1 + rng.permutation(31)[:10] for _ in range(8)])
    ids = np.concatenate([np.zeros((8, 1), int), segments, segments], 1)
    figures, curve = measure_induction(repeater, ids, 3, bootstrap_weights(8, 0))
    assert figures["first_copy"]["mean"] == pytest.approx(CHANCE, rel=1e-5)
    assert figures["second_copy"]["mean"] == pytest.approx(SURE, rel=1e-5)
    assert figures["accuracy"] == {"mean": 1, "low": 1, "high": 1}
    np.testing.assert_allclose(curve, np.full(9, SURE), rtol=1e-5)


def test_induction_of_a_model_that_knows_nothing(mosaic):
    ids = np.random.default_rng(0).integers(0, 32, (40, 10))
    ids = np.concatenate([np.zeros((40, 1), int), ids, ids], 1)
    figures, _ = measure_induction(mosaic, ids, 16, bootstrap_weights(40, 0))
    assert figures["accuracy"]["high"] < 0.3
    assert figures["first_copy"]["mean"] > 3


@pytest.mark.parametrize("length", [9, 11])
def test_halves_of_sequences_that_repeat_themselves(repeater, length):
    half = (length + 1) // 2
    # After the end of text come some tokens, and then the same ones again.
    sequences = [
        np.array([0, *range(start, start + half - 1), *range(start, start + length - half)])
        for start in (1, 9, 20)
    ]
    losses = sequence_losses(repeater.model, sequences, 2, "")
    figures = measure_halves(repeater, sequences, losses, 2, bootstrap_weights(3, 0))
    num_second = length - half
    # The second half's first token follows something that is new.
    known = (CHANCE + (num_second - 1) * SURE) / num_second
    assert figures["first_half"]["mean"] == pytest.approx(CHANCE, rel=1e-5)
    assert figures["second_half"]["mean"] == pytest.approx(known, rel=1e-5)
    assert figures["second_half_alone"]["mean"] == pytest.approx(CHANCE, rel=1e-5)
    assert figures["gain"]["mean"] == pytest.approx(CHANCE - known, rel=1e-5)
