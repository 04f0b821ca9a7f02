"""Facts planted far back: random tokens, many tokens of stories, and the random tokens again."""

import numpy as np
from transformers import PreTrainedTokenizerBase

from mosaic_lab.evaluation.probes import repeat_segments


def plant_facts(
    tokenizer: PreTrainedTokenizerBase,
    rows_NT: np.ndarray,
    distance: int,
    num_facts: int,
    size: int,
    seed: int,
) -> np.ndarray:
    """End of text, a fact, `distance` tokens of stories, a fact: int64 `(2 facts, 1 + 2 size + distance)`.

    A fact is `size` random tokens. In the first half of the rows the same one comes twice; in the second
    half, another one comes first.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): gives the tokens.
        rows_NT (`np.ndarray`): rows of stories of at least `distance` tokens.
        distance (`int`): tokens between the two.
        num_facts (`int`): facts wanted, 2 or more.
        size (`int`): tokens of a fact.
        seed (`int`): of the facts.
    """
    facts_N = repeat_segments(tokenizer, num_facts, size, seed)
    starts_N = np.linspace(0, rows_NT.shape[1] - distance, num_facts).astype(int)
    between_N = np.stack(
        [rows_NT[number % len(rows_NT), start : start + distance] for number, start in enumerate(starts_N)]
    )
    first_N, again_N = facts_N[:, : 1 + size], facts_N[:, 1 + size :]
    rows = [np.concatenate([planted, between_N, again_N], 1) for planted in (first_N, np.roll(first_N, 1, 0))]
    return np.concatenate(rows)


def recall_of_facts(losses_NT: np.ndarray, size: int) -> np.ndarray:
    """Nats per token that planting a fact saves on the second half of its repetition, by fact."""
    loss_N = losses_NT[:, -(size // 2) :].mean(1)
    planted_N, other_N = np.split(loss_N, 2)
    return other_N - planted_N
