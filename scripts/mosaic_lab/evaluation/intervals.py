"""Confidence intervals by bootstrap: how far a mean would be from here with other such documents."""

import numpy as np

NUM_SAMPLES = 2000
CONFIDENCE = 0.95


def bootstrap_weights(num_units: int, seed: int) -> np.ndarray:
    """How often each unit is drawn in each of 2,000 samples with replacement, float32 `(samples, units)`."""
    rng = np.random.default_rng(seed)
    even = np.full(num_units, 1 / num_units)
    return rng.multinomial(num_units, even, size=NUM_SAMPLES).astype(np.float32)


def ratio_interval(
    totals: np.ndarray, counts: np.ndarray, weights_SN: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean of what was summed up in each unit, and the ends of its 95% interval.

    Args:
        totals (`np.ndarray` of shape `(units, ...)`): sums over each unit, such as a document's loss.
        counts (`np.ndarray` of shape `(units,)`): over how many, such as a document's tokens.
        weights_SN (`np.ndarray` of shape `(samples, units)`): see `bootstrap_weights`.

    Returns:
        `tuple[np.ndarray, np.ndarray, np.ndarray]`: `sum totals / sum counts`, and the 2.5% and 97.5%
        quantiles of the same ratio of resampled units; each of shape `(...)`.
    """
    flat_NK = totals.reshape(len(totals), -1).astype(np.float64)
    resampled_SK = (weights_SN @ flat_NK) / (weights_SN @ counts.astype(np.float64))[:, None]
    low, high = np.quantile(resampled_SK, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=0)
    shape = totals.shape[1:]
    return (flat_NK.sum(0) / counts.sum()).reshape(shape), low.reshape(shape), high.reshape(shape)
