"""An n-gram model of the same tokens: what a language model must beat to be worth anything."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class _Level:
    """All k-grams of the training rows.

    `codes` are sorted numbers `context * vocab_size + token`, where `context` is the place of the k-gram's
    first k - 1 tokens among the codes of the level below: they stay small however long the k-gram is.
    """

    codes: np.ndarray
    counts: np.ndarray
    totals: np.ndarray
    distinct: np.ndarray
    discount: float


def ngram_loss(train_NT: np.ndarray, validation_NT: np.ndarray, vocab_size: int, order: int) -> float:
    """Loss on the validation rows of an interpolated Kneser-Ney n-gram model fitted on the training rows.

    p_k(w | h) = (c_k(hw) - d_k)+ / c_k(h) + d_k u_k(h) / c_k(h) p_{k-1}(w | h')
    p_1(w) = (c_1(w) + 1) / (sum c_1 + V)                     d_k = s1_k / (s1_k + 2 s2_k)

    where h are k - 1 tokens, and h' is h without the first of them. c_n counts n-grams within rows; c_k for
    k < n counts the distinct tokens before a k-gram; c_k(h) is its sum, and u_k(h) how many w it counts, over
    all w after h; s1_k and s2_k are how many k-grams it counts once and twice. After an unseen h,
    p_k = p_{k-1}. Near the beginning of a row, where there are fewer than n - 1 tokens before, a shorter h is
    all there is.

    Args:
        train_NT (`np.ndarray` of shape `(rows, time)`): token ids.
        validation_NT (`np.ndarray` of shape `(rows, time)`): token ids; all but a row's first are predicted,
            whatever the order.
        vocab_size (`int`): number V of tokens in the vocabulary.
        order (`int`): n, 1 or more; 2 is a bigram model.

    Returns:
        `float`: nats a token, comparable with a model's validation loss on these rows.

    Raises:
        ValueError: if `order` is less than 1.

    Costs one sort of the training tokens for each length.
    """
    if order < 1:
        raise ValueError(f"order must be at least 1, got {order}.")
    levels = _fit(train_NT.astype(np.int64), vocab_size, order)
    validation_NT = validation_NT.astype(np.int64)
    counts_V = np.zeros(vocab_size)
    counts_V[levels[0].codes] = levels[0].counts
    unigram_V = (counts_V + 1) / (counts_V.sum() + vocab_size)
    probability = unigram_V[validation_NT[:, 1:]]
    context = _find(levels[0].codes, validation_NT)
    for length, level in enumerate(levels[1:], start=2):
        context = context[:, :-1]
        tokens = validation_NT[:, length - 1 :]
        place = _find(level.codes, np.where(context >= 0, context * vocab_size + tokens, -1))
        # The first length - 2 predicted tokens of a row keep what shorter contexts say of them.
        rest = probability[:, length - 2 :]
        probability[:, length - 2 :] = _interpolate(level, context, place, rest)
        context = place
    return float(-np.log(probability).mean())


def _fit(ids_NT: np.ndarray, vocab_size: int, order: int) -> list[_Level]:
    """The levels 1 to `order`."""
    codes, suffixes, occurrences = [], [], None
    ids_NK, num_contexts = np.zeros_like(ids_NT), [1]
    for length in range(1, order + 1):
        context_NK = ids_NK if length == 1 else ids_NK[:, :-1]
        unique, first, ids, occurrences = np.unique(
            context_NK * vocab_size + ids_NT[:, length - 1 :],
            return_index=True,
            return_inverse=True,
            return_counts=True,
        )
        if length > 1:
            # The last tokens of each k-gram, as a (k-1)-gram: what ends at the same place.
            suffixes.append(ids_NK[:, 1:].ravel()[first])
        codes.append(unique)
        num_contexts.append(len(unique))
        ids_NK = ids.reshape(context_NK.shape)
    counts = [np.bincount(suffix, minlength=len(code)) for suffix, code in zip(suffixes, codes, strict=False)]
    return [
        _level(code, count, vocab_size, num)
        for code, count, num in zip(codes, [*counts, occurrences], num_contexts, strict=False)
    ]


def _level(codes: np.ndarray, counts: np.ndarray, vocab_size: int, num_contexts: int) -> _Level:
    context = codes // vocab_size
    once, twice = (counts == 1).sum(), (counts == 2).sum()
    return _Level(
        codes,
        counts,
        totals=np.bincount(context, weights=counts, minlength=num_contexts),
        distinct=np.bincount(context, weights=counts > 0, minlength=num_contexts),
        discount=once / (once + 2 * twice) if once else 0.5,
    )


def _find(codes: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The place of each wanted code among the sorted ones, -1 for those that are not there."""
    place = np.minimum(np.searchsorted(codes, wanted), len(codes) - 1)
    return np.where(codes[place] == wanted, place, -1) if len(codes) else np.full(wanted.shape, -1)


def _interpolate(level: _Level, context: np.ndarray, place: np.ndarray, rest: np.ndarray) -> np.ndarray:
    if len(level.codes) == 0:
        return rest
    total = np.where(context >= 0, level.totals[context], 0)
    count = np.where(place >= 0, level.counts[place], 0)
    is_seen = total > 0
    total = np.maximum(total, 1)
    backoff = np.where(is_seen, level.discount * level.distinct[context] / total, 1.0)
    return np.maximum(count - level.discount, 0) / total + backoff * rest
