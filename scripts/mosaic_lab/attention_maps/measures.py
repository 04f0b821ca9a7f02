"""What mean attention scores come to: sinks, decay, and the bump of recent positions.

Shapes: H heads, T context. Measures take scores `(..., context)` and return `(...)`.
"""

import numpy as np

# Positions that count as recent, the last one among them.
RECENT = 16
LEAST_HEADS = 3


def sink_share(score_HT: np.ndarray) -> np.ndarray:
    """Attention on position 0."""
    return score_HT[..., 0]


def far_to_near(score_HT: np.ndarray, first: int = 0) -> np.ndarray:
    """Mean score in the far half of the positions that are not recent, over that in the near half.

    1 where attention does not depend on distance, NaN where there is none in either half; `first` leaves out
    positions at the very beginning.
    """
    end = score_HT.shape[-1] - RECENT
    far_H = score_HT[..., first : end // 2].mean(-1)
    near_H = score_HT[..., end // 2 : end].mean(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return far_H / near_H


def unevenness(score_HT: np.ndarray) -> np.ndarray:
    """Coefficient of variation of attention along the positions that are not recent, but for position 0.

    Of means over 16 positions each, since single ones vary with what stands there; 0 where attention is flat,
    NaN where there is none.
    """
    score_HT = score_HT[..., 1:-RECENT]
    num_blocks = score_HT.shape[-1] // RECENT
    last_HT = score_HT[..., score_HT.shape[-1] - num_blocks * RECENT :]
    mean_HN = last_HT.reshape(*last_HT.shape[:-1], num_blocks, RECENT).mean(-1)
    with np.errstate(invalid="ignore"):
        return mean_HN.std(-1) / mean_HN.mean(-1)


def plateau(score_HT: np.ndarray) -> np.ndarray:
    """Median score of the positions that are not recent."""
    return np.median(score_HT[..., :-RECENT], axis=-1)


def recency_share(score_HT: np.ndarray) -> np.ndarray:
    """Attention on recent positions beyond what they would have on the plateau.

    Positions that cannot be seen (a mosaic's last pair) have no score and count for nothing.
    """
    recent_HT = score_HT[..., -RECENT:]
    excess_HT = np.where(recent_HT > 0, recent_HT - plateau(score_HT)[..., None], 0)
    return excess_HT.sum(-1)


def recency_reach(score_HT: np.ndarray) -> np.ndarray:
    """How many tokens before the last position the excess over the plateau has fallen to half.

    To half of that of the most recent position with a score; 0 if that is not above the plateau. Between
    positions the excess is taken to be linear.
    """
    excess_HT = score_HT - plateau(score_HT)[..., None]
    return np.apply_along_axis(_half_distance, -1, np.where(score_HT > 0, excess_HT, np.nan)[..., ::-1])


def _half_distance(excess_T: np.ndarray) -> float:
    newest = int(np.isfinite(excess_T).argmax())
    half = excess_T[newest] / 2
    if half <= 0:
        return 0.0
    # There is one, as half of the positions that are not recent are not above the plateau.
    after = newest + int((excess_T[newest:] < half).argmax())
    above, below = excess_T[after - 1], excess_T[after]
    return after - 1 + (above - half) / (above - below)


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's, of two measures `(heads,)`; NaN with fewer than 3 heads, or if all are equal."""
    ranks = [_rank(first), _rank(second)]
    if len(first) < LEAST_HEADS or any(np.ptp(rank) == 0 for rank in ranks):
        return np.nan
    return float(np.corrcoef(*ranks)[0, 1])


def _rank(values: np.ndarray) -> np.ndarray:
    """Ranks from 1; equal values share their mean rank."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[place]
