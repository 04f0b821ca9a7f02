import numpy as np
import pytest

from mosaic_lab.evaluation.intervals import bootstrap_weights, ratio_interval


def test_mean_is_that_of_all_tokens_not_of_documents():
    weights = bootstrap_weights(2, 0)
    mean, low, high = ratio_interval(np.array([10.0, 1.0]), np.array([10, 4]), weights)
    assert mean == pytest.approx(11 / 14)
    # Either document may fill both places of a sample.
    assert (low, high) == (pytest.approx(0.25), pytest.approx(1.0))


def test_interval_is_the_one_of_the_central_limit_theorem():
    values = np.random.default_rng(0).exponential(size=(4_000, 2)) * [1, 3]
    mean, low, high = ratio_interval(values, np.ones(4_000), bootstrap_weights(4_000, 0))
    half = 1.96 * values.std(0) / np.sqrt(4_000)
    np.testing.assert_allclose(low, mean - half, rtol=0.01)
    np.testing.assert_allclose(high, mean + half, rtol=0.01)


def test_interval_covers_the_truth_in_95_of_100_cases():
    rng = np.random.default_rng(1)
    weights = bootstrap_weights(200, 0)
    hits = 0
    for _ in range(400):
        counts = rng.integers(20, 200, 200)
        _, low, high = ratio_interval(counts * (2 + rng.normal(size=200)), counts, weights)
        hits += low < 2 < high
    assert 0.9 < hits / 400 < 0.98
