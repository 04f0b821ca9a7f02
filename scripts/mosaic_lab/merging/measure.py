"""What all merging experiments do with a model: measures it in each way, on each sequence."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm
from transformers import PreTrainedModel

from mosaic_lab.core.files import write_arrays
from mosaic_lab.core.work import ARRAYS
from mosaic_lab.merging.parts import list_ways, predict_rest

Metrics = dict[str, float]


def measure_ways(
    model: PreTrainedModel,
    sequences: Iterable[tuple[Sequence[int], Sequence[int], Callable[[np.ndarray], Metrics]]],
    num_parts: Sequence[int],
    folder: Path,
    label: str,
) -> dict[str, Any]:
    """Leaves all metrics, `(ways, sequences)` each, in `folder`, and returns their means.

    Args:
        model (`PreTrainedModel`): a Memory Mosaic.
        sequences: the tokens of each, its edges as `predict_rest` wants them, and what makes metrics of the
            logits of the rest.
        num_parts (`Sequence[int]`): numbers of parts.
        folder (`Path`): of the run.
        label (`str`): for the progress bar.

    Returns:
        `dict`: `ways`, a list with, for each way and metric, its mean over the sequences, the mean of its
        difference to the sequence read in a row, and the standard error of that.
    """
    ways = list_ways(num_parts)
    found: list[dict[Any, Metrics]] = []
    for ids, edges, make_metrics in tqdm(sequences, desc=label, leave=False):
        predicted = predict_rest(model, ids, edges, num_parts)
        found.append({way: make_metrics(logits) for way, logits in predicted})
    names = list(found[0][ways[0]])
    arrays = {name: np.array([[each[way][name] for each in found] for way in ways]) for name in names}
    write_arrays(folder / ARRAYS, arrays)
    return {
        "ways": [
            {**way._asdict(), **{name: _summarise(arrays[name], number) for name in names}}
            for number, way in enumerate(ways)
        ]
    }


def _summarise(values_WN: np.ndarray, number: int) -> dict[str, float]:
    difference_N = values_WN[number] - values_WN[0]
    return {
        "mean": float(values_WN[number].mean()),
        "difference": float(difference_N.mean()),
        "error": float(difference_N.std(ddof=1) / len(difference_N) ** 0.5),
    }
