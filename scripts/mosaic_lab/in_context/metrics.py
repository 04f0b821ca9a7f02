"""How often a model's likeliest next token is the answer, by the place of the answer."""

import numpy as np
import torch
from transformers import PreTrainedModel

from mosaic_lab.in_context.rows import NO_ANSWER, Rows

# So many tokens are predicted at a time.
TOKENS_AT_ONCE = 2**14


@torch.no_grad()
def count_right(model: PreTrainedModel, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Counts answers and right ones at each place.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: number of answers, and of those that were the likeliest of all tokens
        before they were seen, by place from 0 on.
    """
    model.eval()
    rows_at_once = max(1, TOKENS_AT_ONCE // rows.ids_NT.shape[1])
    batches = zip(rows.ids_NT.split(rows_at_once), rows.place_NT.split(rows_at_once), strict=True)
    places, right = [], []
    for ids_nT, place_nT in batches:
        logits = model(input_ids=ids_nT.to(model.device)).logits
        likeliest_nT = logits[:, :-1].argmax(-1).cpu()
        is_answer_nT = place_nT[:, 1:] != NO_ANSWER
        places.append(place_nT[:, 1:][is_answer_nT])
        right.append((likeliest_nT == ids_nT[:, 1:])[is_answer_nT])
    places, right = (torch.cat(parts).numpy() for parts in (places, right))
    return np.bincount(places), np.bincount(places, weights=right).astype(int)


def accuracy_of(counts: tuple[np.ndarray, np.ndarray]) -> float:
    """The share of right answers."""
    number, right = counts
    return float(right.sum() / number.sum())
