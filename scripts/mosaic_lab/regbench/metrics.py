"""How close predictions come to the automaton behind a sequence.

Scored are all positions that have a token behind them, also those where that is a separator: the string could
have gone on there too. Shapes: T time, V vocabulary.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from mosaic_lab.regbench.automata import SEPARATOR


def score(prediction_TV: np.ndarray, distribution_TV: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy and total variation distance at each position.

    Args:
        prediction_TV (`np.ndarray` of shape `(time, 20)`): predicted probabilities of the next token.
        distribution_TV (`np.ndarray` of shape `(time, 20)`): the automaton's.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: whether the likeliest of all 20 tokens is legal, `(time,)`; half the
        sum of absolute differences, between 0 and 1, `(time,)`.
    """
    likeliest_T = prediction_TV.argmax(1)
    legal_T = np.take_along_axis(distribution_TV, likeliest_T[:, None], 1)[:, 0] > 0
    return legal_T, 0.5 * np.abs(prediction_TV - distribution_TV).sum(1)


def score_all(rows: Iterable[dict[str, Any]], predictions: Iterable[np.ndarray]) -> dict[str, np.ndarray]:
    """Mean scores over all scored positions of all rows, and by place.

    Args:
        rows (`Iterable[dict]`): of the data set.
        predictions (`Iterable[np.ndarray]`): for each row at least as many positions as it has tokens, times
            20 probabilities.

    Returns:
        `dict`: `accuracy` and `tvd`; the same followed by `_by_position` in the sequence and by `_by_string`,
        the number of the string that is being continued; `count_by_position`, `count_by_string`.
    """
    position, string, legal, distance = ([] for _ in range(4))
    for row, prediction in zip(rows, predictions, strict=True):
        ids = np.asarray(row["input_ids"])
        scored = slice(0, len(ids) - 1)
        scores = score(prediction[scored], np.asarray(row["distribution"])[scored])
        legal.append(scores[0])
        distance.append(scores[1])
        position.append(np.arange(len(ids) - 1))
        string.append(np.cumsum(ids == SEPARATOR)[scored])
    legal, distance = np.concatenate(legal), np.concatenate(distance)
    result = {"accuracy": legal.mean(), "tvd": distance.mean()}
    for name, place in (("position", np.concatenate(position)), ("string", np.concatenate(string))):
        count = np.bincount(place)
        result[f"count_by_{name}"] = count
        result[f"accuracy_by_{name}"] = np.bincount(place, weights=legal) / count
        result[f"tvd_by_{name}"] = np.bincount(place, weights=distance) / count
    return result
