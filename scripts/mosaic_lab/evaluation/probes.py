"""What a model makes of its context, measured without labels."""

from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from mosaic_lab.evaluation.intervals import ratio_interval
from mosaic_lab.evaluation.losses import row_losses, sequence_losses
from mosaic_lab.evaluation.models import Contestant


def repeat_segments(
    tokenizer: PreTrainedTokenizerBase, num_segments: int, segment_size: int, seed: int
) -> np.ndarray:
    """End of text and then a segment of random tokens, twice: int64 `(segments, 1 + 2 segment_size)`.

    Tokens are drawn evenly from the vocabulary without the special ones, so that nothing but the first copy
    tells what comes in the second.
    """
    special = set(tokenizer.all_special_ids)
    plain = np.array([token for token in range(len(tokenizer)) if token not in special])
    segments = np.random.default_rng(seed).choice(plain, (num_segments, segment_size))
    ends = np.full((num_segments, 1), tokenizer.eos_token_id)
    return np.concatenate([ends, segments, segments], 1)


@torch.no_grad()
def measure_induction(
    contestant: Contestant, ids_NT: np.ndarray, batch_size: int, weights_SN: np.ndarray
) -> tuple[dict[str, Any], np.ndarray]:
    """Loss on both copies, and how often the likeliest token is right in the second.

    The second copy's first token, which nothing announces, is left out of both copies.

    Args:
        contestant (`Contestant`): to measure.
        ids_NT (`np.ndarray`): see `repeat_segments`.
        batch_size (`int`): rows at a time.
        weights_SN (`np.ndarray`): of the bootstrap over segments.

    Returns:
        `tuple[dict, np.ndarray]`: `first_copy`, `second_copy` and `accuracy`, each mean and interval; the
        second copy's mean loss by token, `(segment_size - 1,)`.
    """
    size = ids_NT.shape[1] // 2
    losses_NT = row_losses(contestant.model, ids_NT, batch_size, f"{contestant.name}, induction")
    first_NT, second_NT = losses_NT[:, 1:size], losses_NT[:, size + 1 :]
    hits = []
    for start in range(0, len(ids_NT), batch_size):
        ids = torch.from_numpy(ids_NT[start : start + batch_size]).to(contestant.model.device)
        guesses = contestant.model(input_ids=ids[:, :-1], use_cache=False).logits[:, size + 1 :].argmax(-1)
        hits.append((guesses == ids[:, size + 2 :]).cpu().numpy())
    counts = np.full(len(ids_NT), size - 1)
    result = {
        name: interval_record(values.sum(1), counts, weights_SN)
        for name, values in (
            ("first_copy", first_NT),
            ("second_copy", second_NT),
            ("accuracy", np.concatenate(hits)),
        )
    }
    return result, second_NT.mean(0)


def measure_halves(
    contestant: Contestant,
    sequences_N: list[np.ndarray],
    losses_N: list[np.ndarray],
    batch_size: int,
    weights_SN: np.ndarray,
) -> dict[str, Any]:
    """Losses on the first and the second half of each sequence, and on the second one alone.

    Alone, it has only the sequence's first token, mostly an end of text, in front of it: the difference is
    what the first half is good for.

    Args:
        contestant (`Contestant`): to measure.
        sequences_N (`list[np.ndarray]`): token ids.
        losses_N (`list[np.ndarray]`): their `sequence_losses`.
        batch_size (`int`): rows at a time.
        weights_SN (`np.ndarray`): of the bootstrap over sequences.

    Returns:
        `dict`: `first_half`, `second_half`, `second_half_alone` and `gain`, each mean and interval, nats a
        token.
    """
    halves = [(len(sequence) + 1) // 2 for sequence in sequences_N]
    alone_N = [
        np.concatenate([sequence[:1], sequence[half:]])
        for sequence, half in zip(sequences_N, halves, strict=True)
    ]
    alone = sequence_losses(contestant.model, alone_N, batch_size, f"{contestant.name}, halves")
    first = np.array([loss[: half - 1].sum() for loss, half in zip(losses_N, halves, strict=True)])
    second = np.array([loss[half - 1 :].sum() for loss, half in zip(losses_N, halves, strict=True)])
    lone = np.array([loss.sum() for loss in alone])
    num_second = np.array([len(sequence) - half for sequence, half in zip(sequences_N, halves, strict=True)])
    return {
        "first_half": interval_record(first, np.array(halves) - 1, weights_SN),
        "second_half": interval_record(second, num_second, weights_SN),
        "second_half_alone": interval_record(lone, num_second, weights_SN),
        "gain": interval_record(lone - second, num_second, weights_SN),
    }


def interval_record(totals: np.ndarray, counts: np.ndarray, weights_SN: np.ndarray) -> dict[str, float]:
    """`ratio_interval` of single numbers, for JSON: `mean`, `low` and `high`."""
    return {
        name: float(value)
        for name, value in zip(
            ("mean", "low", "high"), ratio_interval(totals, counts, weights_SN), strict=True
        )
    }
