"""Probes of what a model does with its context, measured without labels."""

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from mosaic_lab.evaluation.losses import row_losses, sequence_losses
from mosaic_lab.evaluation.models import TrainedModel


def repeat_segments(
    tokenizer: PreTrainedTokenizerBase, num_segments: int, segment_size: int, seed: int
) -> np.ndarray:
    """End of text and then a segment of random tokens, twice: int64 `(segments, 1 + 2 segment_size)`.

    Tokens are drawn evenly from the vocabulary without the special ones, so that only the first copy
    announces the second.
    """
    special = set(tokenizer.all_special_ids)
    plain = np.array([token for token in range(len(tokenizer)) if token not in special])
    segments = np.random.default_rng(seed).choice(plain, (num_segments, segment_size))
    ends = np.full((num_segments, 1), tokenizer.eos_token_id)
    return np.concatenate([ends, segments, segments], 1)


@torch.no_grad()
def measure_induction(
    model: TrainedModel, ids_NT: np.ndarray, batch_size: int
) -> tuple[dict, dict[str, np.ndarray]]:
    """Measures the loss on both copies, and whether the likeliest token is right in the second.

    The second copy's first token, which nothing announces, is left out of both copies.

    Args:
        model (`TrainedModel`): the model.
        ids_NT (`np.ndarray`): see `repeat_segments`.
        batch_size (`int`): rows at a time.

    Returns:
        `tuple[dict, dict]`: nothing; `first_copy` and `second_copy`, losses in nats, and `accuracy`, whether
        the likeliest token is right, each `(segments, segment_size - 1)`.
    """
    size = ids_NT.shape[1] // 2
    losses_NT = row_losses(model.network, ids_NT, batch_size, f"{model.name}, induction")
    hits = []
    for start in range(0, len(ids_NT), batch_size):
        ids = torch.from_numpy(ids_NT[start : start + batch_size]).to(model.network.device)
        guesses = model.network(input_ids=ids[:, :-1], use_cache=False).logits[:, size + 1 :].argmax(-1)
        hits.append((guesses == ids[:, size + 2 :]).cpu().numpy())
    first_NT, second_NT = losses_NT[:, 1:size], losses_NT[:, size + 1 :]
    return {}, {"first_copy": first_NT, "second_copy": second_NT, "accuracy": np.concatenate(hits)}


def measure_halves(
    model: TrainedModel, sequences_N: list[np.ndarray], losses_N: list[np.ndarray], batch_size: int
) -> dict[str, np.ndarray]:
    """Measures losses on the first and the second half of each sequence, and on the second one alone.

    Alone, it follows only the sequence's first token, mostly an end of text: the difference is what the first
    half contributes.

    Args:
        model (`TrainedModel`): the model.
        sequences_N (`list[np.ndarray]`): token ids.
        losses_N (`list[np.ndarray]`): their `sequence_losses`.
        batch_size (`int`): rows at a time.

    Returns:
        `dict`: `first`, `second` and `alone`, sums of losses in nats, and `num_first` and `num_second`,
        numbers of tokens, each `(sequences,)`.
    """
    halves = [(len(sequence) + 1) // 2 for sequence in sequences_N]
    alone_N = [
        np.concatenate([sequence[:1], sequence[half:]])
        for sequence, half in zip(sequences_N, halves, strict=True)
    ]
    alone = sequence_losses(model.network, alone_N, batch_size, f"{model.name}, halves")
    return {
        "first": np.array([loss[: half - 1].sum() for loss, half in zip(losses_N, halves, strict=True)]),
        "second": np.array([loss[half - 1 :].sum() for loss, half in zip(losses_N, halves, strict=True)]),
        "alone": np.array([loss.sum() for loss in alone]),
        "num_first": np.array(halves) - 1,
        "num_second": np.array(
            [len(sequence) - half for sequence, half in zip(sequences_N, halves, strict=True)]
        ),
    }
