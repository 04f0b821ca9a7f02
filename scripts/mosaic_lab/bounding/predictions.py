"""Predictions with bounded memories: those of a mosaic, and a sliding window of GPT-2."""

import numpy as np
import torch
from transformers import PreTrainedModel

from modeling_mosaic import BoundedCache
from modeling_mosaic.compatibility import CACHE_NAME
from mosaic_lab.evaluation.losses import token_logits

# Share of a sliding window whose tokens are predicted at a time: the first of them see so much less.
STRIDE = 1 / 4


def bounded_logits(
    model: PreTrainedModel, ids_BT: np.ndarray, max_pairs: int, policy: str, chunk_size: int
) -> torch.Tensor:
    """`token_logits` of a mosaic whose units, of the second kind the long-term ones, hold at most `max_pairs`
    pairs."""
    cache = BoundedCache(model.config, max_pairs, policy, chunk_size)
    return token_logits(model, ids_BT, use_cache=True, **{CACHE_NAME: cache})


def window_logits(model: PreTrainedModel, ids_BT: np.ndarray, window: int, batch_size: int) -> torch.Tensor:
    """`token_logits` of a transformer with a sliding window.

    The window of `window` tokens, the predicted one included, moves by a quarter of its size and is read anew
    each time, with positions from 0. What a token sees is 3/4 of a window at least.
    """
    time, stride = ids_BT.shape[1], max(1, int(window * STRIDE))
    first_BTV = token_logits(model, ids_BT[:, :window])
    logits_BTV = first_BTV.new_empty(len(ids_BT), time - 1, first_BTV.shape[-1])
    logits_BTV[:, : window - 1] = first_BTV
    stops = [min(stop, time) for stop in range(window + stride, time + stride, stride)]
    places = [(row, stop) for stop in stops for row in range(len(ids_BT))]
    for first in range(0, len(places), batch_size):
        batch = places[first : first + batch_size]
        seen_BT = np.stack([ids_BT[row, stop - window : stop] for row, stop in batch])
        for (row, stop), logits_TV in zip(batch, token_logits(model, seen_BT), strict=True):
            logits_BTV[row, stop - 1 - stride : stop - 1] = logits_TV[-stride:]
    return logits_BTV
