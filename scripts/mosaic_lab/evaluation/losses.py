"""Losses of a model, token by token."""

import numpy as np
import torch
from torch.nn import functional as F
from tqdm import tqdm
from transformers import PreTrainedModel


@torch.no_grad()
def token_losses(model: PreTrainedModel, ids_BT: np.ndarray) -> np.ndarray:
    """Loss on each token but the first of each row, nats, float32 `(rows, time - 1)`.

    Rows of several lengths end in any token; what is computed there is for the caller to leave out. They need
    no mask, because nothing before it depends on it.
    """
    ids = torch.from_numpy(ids_BT).to(model.device)
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1].float()
    return F.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none").cpu().numpy()


def row_losses(model: PreTrainedModel, rows_NT: np.ndarray, batch_size: int, label: str) -> np.ndarray:
    """`token_losses` of many rows, float32 `(rows, time - 1)`."""
    batches = range(0, len(rows_NT), batch_size)
    return np.concatenate(
        [token_losses(model, rows_NT[i : i + batch_size]) for i in tqdm(batches, desc=label, leave=False)]
    )


def sequence_losses(
    model: PreTrainedModel, sequences_N: list[np.ndarray], batch_size: int, label: str
) -> list[np.ndarray]:
    """Loss on each token but the first of each sequence, in the order given."""
    lengths_N = np.array([len(sequence) for sequence in sequences_N])
    losses_N: list[np.ndarray | None] = [None] * len(sequences_N)
    # Those of like length together, so that little is padded.
    order = np.argsort(lengths_N, kind="stable")
    for start in tqdm(range(0, len(order), batch_size), desc=label, leave=False):
        batch = order[start : start + batch_size]
        longest = lengths_N[batch].max()
        ids_BT = np.stack(
            [np.pad(sequences_N[number], (0, longest - lengths_N[number]), mode="edge") for number in batch]
        )
        for number, losses_T in zip(batch, token_losses(model, ids_BT), strict=True):
            losses_N[number] = losses_T[: lengths_N[number] - 1]
    return losses_N
