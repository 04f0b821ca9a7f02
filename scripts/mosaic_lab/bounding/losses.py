"""Losses of models that remember only so much: bounded memories of a mosaic, a sliding window of GPT-2."""

import numpy as np
import torch
from torch.nn import functional as F
from transformers import PreTrainedModel

from modeling_mosaic import BoundedCache
from modeling_mosaic.compatibility import CACHE_NAME
from mosaic_lab.evaluation.losses import token_losses

# Share of a sliding window whose tokens are predicted at a time: the first of them see so much less.
STRIDE = 1 / 4


@torch.no_grad()
def bounded_losses(
    model: PreTrainedModel, ids_BT: np.ndarray, max_pairs: int, policy: str, chunk_size: int
) -> np.ndarray:
    """Losses of a mosaic whose units hold at most `max_pairs` pairs, in nats, float32 `(rows, time - 1)`."""
    ids = torch.from_numpy(ids_BT).to(model.device)
    cache = BoundedCache(model.config, max_pairs, policy, chunk_size)
    logits = model(ids, use_cache=True, **{CACHE_NAME: cache}).logits[:, :-1].float()
    return F.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none").cpu().numpy()


def window_losses(model: PreTrainedModel, ids_BT: np.ndarray, window: int, batch_size: int) -> np.ndarray:
    """Losses of a transformer with a sliding window, in nats, float32 `(rows, time - 1)`.

    The window of `window` tokens, the predicted one included, moves by a quarter of its size and is read anew
    each time, with positions from 0. What a token sees is 3/4 of a window at least.
    """
    time, stride = ids_BT.shape[1], max(1, int(window * STRIDE))
    losses_BT = np.empty((len(ids_BT), time - 1), dtype=np.float32)
    losses_BT[:, : window - 1] = token_losses(model, ids_BT[:, :window])
    stops = [min(stop, time) for stop in range(window + stride, time + stride, stride)]
    places = [(row, stop) for stop in stops for row in range(len(ids_BT))]
    for first in range(0, len(places), batch_size):
        batch = places[first : first + batch_size]
        seen_BT = np.stack([ids_BT[row, stop - window : stop] for row, stop in batch])
        for (row, stop), loss_T in zip(batch, token_losses(model, seen_BT), strict=True):
            losses_BT[row, stop - 1 - stride : stop - 1] = loss_T[-stride:]
    return losses_BT


def in_bins(losses_BT: np.ndarray, size: int) -> np.ndarray:
    """Mean losses of `size` positions each, `(rows, bins)`; the last bin may have fewer."""
    starts = range(0, losses_BT.shape[1], size)
    return np.stack([losses_BT[:, start : start + size].mean(1) for start in starts], 1)
