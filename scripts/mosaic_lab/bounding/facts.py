"""Facts planted far back: random tokens, many tokens of stories, and the random tokens again."""

import numpy as np
from transformers import PreTrainedTokenizerBase

from mosaic_lab.evaluation.probes import repeat_segments


def plant_facts(
    tokenizer: PreTrainedTokenizerBase,
    rows_NT: np.ndarray,
    lead: int,
    distance: int,
    num_facts: int,
    size: int,
    seed: int,
) -> np.ndarray:
    """Rows of stories with facts: int64 `(2 facts, 1 + lead + size + distance + size)`.

    End of text, `lead` tokens of stories, a fact, `distance` tokens of stories, a fact. A fact is `size`
    random tokens. In the first half of the rows the same one comes twice; in the second half, another one
    comes first.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): gives the tokens.
        rows_NT (`np.ndarray`): rows of stories of at least `lead + distance` tokens.
        lead (`int`): tokens before the facts, which would else be the oldest pairs of all.
        distance (`int`): tokens between the two.
        num_facts (`int`): facts wanted, 2 or more.
        size (`int`): tokens of a fact.
        seed (`int`): of the facts.
    """
    ends_N1, facts_N, _ = np.split(repeat_segments(tokenizer, num_facts, size, seed), [1, 1 + size], 1)
    starts_N = np.linspace(0, rows_NT.shape[1] - lead - distance, num_facts).astype(int)
    stories_N = np.stack(
        [rows_NT[number % len(rows_NT), start:][: lead + distance] for number, start in enumerate(starts_N)]
    )
    before_N, between_N = stories_N[:, :lead], stories_N[:, lead:]
    rows = [(ends_N1, before_N, first_N, between_N, facts_N) for first_N in (facts_N, np.roll(facts_N, 1, 0))]
    return np.concatenate([np.concatenate(parts, 1) for parts in rows])


def recall_of_facts(losses_NT: np.ndarray, size: int) -> np.ndarray:
    """Nats per token that planting a fact saves on the second half of its repetition, by fact."""
    loss_N = losses_NT[:, -(size // 2) :].mean(1)
    planted_N, other_N = np.split(loss_N, 2)
    return other_N - planted_N
