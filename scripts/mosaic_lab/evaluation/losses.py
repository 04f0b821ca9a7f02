"""Losses of a model, token by token."""

import numpy as np
import torch
from torch.nn import functional as F
from tqdm import tqdm
from transformers import PreTrainedModel


@torch.no_grad()
def token_logits(model: PreTrainedModel, ids_BT: np.ndarray, **options) -> torch.Tensor:
    """Logits that predict each token but the first of each row, float32 `(rows, time - 1, vocab)`.

    Args:
        model (`PreTrainedModel`): a causal language model.
        ids_BT (`np.ndarray`): rows of tokens.
        options: further arguments of the model, such as a cache.
    """
    ids = torch.from_numpy(ids_BT).to(model.device)
    return model(input_ids=ids, **{"use_cache": False, **options}).logits[:, :-1].float()


def losses_of(logits_BTV: torch.Tensor, ids_BT: np.ndarray) -> np.ndarray:
    """Loss on each token but the first of each row, in nats, float32 `(rows, time - 1)`."""
    ids = torch.from_numpy(ids_BT).to(logits_BTV.device)
    return F.cross_entropy(logits_BTV.transpose(1, 2), ids[:, 1:], reduction="none").cpu().numpy()


def token_losses(model: PreTrainedModel, ids_BT: np.ndarray) -> np.ndarray:
    """Computes the loss on each token but the first of each row, in nats, float32 `(rows, time - 1)`.

    Shorter rows are filled up with any token, whose losses the caller drops. They need no mask, because
    nothing before the filling depends on it.
    """
    return losses_of(token_logits(model, ids_BT), ids_BT)


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
    # Sequences of similar length go together, so that little is padded.
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
