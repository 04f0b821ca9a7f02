"""Statistics of a corpus: its size, its variety, and the losses of n-gram models."""

import re
from collections.abc import Iterable
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from mosaic_lab.training.ngram import ngram_loss
from mosaic_lab.training.rows import pack_rows

ORDERS = (2, 3, 5)
# Most tokens to count for the n-gram models.
NGRAM_TOKENS = 20_000_000
GRAM_WORDS = 4
# Distinct 4-grams are merged whenever this many more have been collected.
_MERGE_AFTER = 5_000_000
_WORDS = re.compile(r"[^\W\d_](?:[\w'’]*\w)?|[^\s\w]")


def measure_split(texts: list[str], tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Counts stories and tokens (an end-of-text token per story included), and the mean length of a story."""
    num_tokens = 0
    for start in range(0, len(texts), 1000):
        ids = tokenizer(texts[start : start + 1000], add_special_tokens=False, return_attention_mask=False)
        num_tokens += sum(len(story) + 1 for story in ids["input_ids"])
    return {
        "stories": len(texts),
        "tokens": num_tokens,
        "mean_characters": round(sum(map(len, texts)) / max(1, len(texts)), 1),
    }


def count_distinct_grams(texts: Iterable[str]) -> int:
    """Counts the different runs of four words or punctuation marks in the texts, by hashes of 64 bits."""
    numbers: dict[str, int] = {}
    factors = np.random.default_rng(0).integers(1, 1 << 63, GRAM_WORDS, dtype=np.uint64) * np.uint64(2)
    factors += np.uint64(1)
    distinct, fresh, num_fresh = np.zeros(0, dtype=np.uint64), [], 0
    for text in texts:
        ids = [numbers.setdefault(word, len(numbers)) + 1 for word in _WORDS.findall(text)]
        if len(ids) >= GRAM_WORDS:
            windows = np.lib.stride_tricks.sliding_window_view(np.array(ids, np.uint64), GRAM_WORDS)
            fresh.append((windows * factors).sum(axis=1, dtype=np.uint64))
            num_fresh += len(fresh[-1])
        if num_fresh > _MERGE_AFTER:
            distinct, fresh, num_fresh = np.unique(np.concatenate([distinct, *fresh])), [], 0
    return len(np.unique(np.concatenate([distinct, *fresh])))


def measure_losses(
    train: list[str], validation: list[str], tokenizer: PreTrainedTokenizerBase, block_size: int
) -> dict[str, float]:
    """Validation losses of n-gram models, in nats per token, by their order; see `ngram_loss`.

    Raises:
        InputError: if the stories of a split do not fill one row of tokens.
    """
    rows = [
        pack_rows(Dataset.from_dict({"text": texts}), tokenizer, block_size) for texts in (train, validation)
    ]
    rows[0] = rows[0].select(range(min(len(rows[0]), max(1, NGRAM_TOKENS // block_size))))
    arrays = [split.with_format("numpy")[:]["input_ids"] for split in rows]
    return {str(order): round(ngram_loss(*arrays, len(tokenizer), order), 4) for order in ORDERS}
