"""A bigram model of the same tokens: what a language model must beat to be worth anything."""

import numpy as np


def bigram_loss(train_NT: np.ndarray, validation_NT: np.ndarray, vocab_size: int) -> float:
    """Loss on the validation rows of an interpolated Kneser-Ney bigram model fitted on the training rows.

    p(b | a) = (n(ab) - d)+ / n(a) + d u(a) / n(a) q(b)
    q(b) = (u'(b) + 1) / (sum u' + V)                        d = s1 / (s1 + 2 s2)

    where n counts pairs within rows, u(a) and u'(b) count the distinct successors of a and predecessors of b,
    and s1 and s2 are how many pairs occur once and twice. After an unseen a, p = q.

    Args:
        train_NT (`np.ndarray` of shape `(rows, time)`): token ids.
        validation_NT (`np.ndarray` of shape `(rows, time)`): token ids; all but a row's first are predicted.
        vocab_size (`int`): number V of tokens in the vocabulary.

    Returns:
        `float`: nats a token, comparable with a model's validation loss on these rows.

    Costs one sort of the training pairs.
    """
    pairs, counts = np.unique(_pair_codes(train_NT, vocab_size), return_counts=True)
    before, after = np.divmod(pairs, vocab_size)
    once, twice = (counts == 1).sum(), (counts == 2).sum()
    discount = once / (once + 2 * twice) if once else 0.5
    total_V = np.bincount(before, weights=counts, minlength=vocab_size)
    successors_V = np.bincount(before, minlength=vocab_size)
    predecessors_V = np.bincount(after, minlength=vocab_size)
    unigram_V = (predecessors_V + 1) / (len(pairs) + vocab_size)

    asked = _pair_codes(validation_NT, vocab_size)
    before, after = np.divmod(asked, vocab_size)
    place = np.minimum(np.searchsorted(pairs, asked), len(pairs) - 1)
    count = np.where(pairs[place] == asked, counts[place], 0)
    total = total_V[before]
    is_seen = total > 0
    total = np.maximum(total, 1)
    backoff = np.where(is_seen, discount * successors_V[before] / total, 1.0)
    probability = np.maximum(count - discount, 0) / total + backoff * unigram_V[after]
    return float(-np.log(probability).mean())


def _pair_codes(ids_NT: np.ndarray, vocab_size: int) -> np.ndarray:
    """Each pair of neighbours in a row as one number."""
    ids_NT = ids_NT.astype(np.int64)
    return (ids_NT[:, :-1] * vocab_size + ids_NT[:, 1:]).ravel()
