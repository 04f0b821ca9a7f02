"""Finds exact and near duplicates among stories."""

import hashlib
import re
from collections.abc import Sequence

import numpy as np

SHINGLE_WORDS = 5
# Pairs with similarity s are compared with probability 1 - (1 - s^4)^16: 0.99 at 0.7, and 0.34 at 0.4.
NUM_BANDS, ROWS_PER_BAND = 16, 4
_WORDS = re.compile(r"\w+")


def normalise(text: str) -> str:
    """Keeps the words only, in lower case."""
    return " ".join(_WORDS.findall(text.lower()))


def find_exact(texts: Sequence[str]) -> np.ndarray:
    """Marks texts with the words of an earlier one, in the same order."""
    seen: set[bytes] = set()
    is_copy = np.zeros(len(texts), dtype=bool)
    for place, text in enumerate(texts):
        digest = hashlib.blake2b(normalise(text).encode(), digest_size=16).digest()
        is_copy[place] = digest in seen
        seen.add(digest)
    return is_copy


def find_near(texts: Sequence[str], threshold: float, seed: int = 0) -> np.ndarray:
    """Marks near duplicates of earlier texts: MinHash proposes pairs, and their shingles decide.

    J(a, b) = |S(a) & S(b)| / |S(a) | S(b)|                  S(a): the runs of 5 words in a

    Args:
        texts (`Sequence[str]`): stories.
        threshold (`float`): least J of a near duplicate.
        seed (`int`): seed of the hash functions.

    Returns:
        `np.ndarray` of shape `(texts,)`: True for a near duplicate of an earlier text that is not one itself.

    Costs 64 hashes per shingle, and a comparison per pair of texts that agrees in a band of 4 of them.
    """
    is_near = np.zeros(len(texts), dtype=bool)
    if len(texts) < 2:
        return is_near
    for bands in _signatures(texts, seed).T:
        order = np.argsort(bands, kind="stable")
        starts = np.flatnonzero(np.diff(bands[order], prepend=bands[order[0]] + 1))
        for group in np.split(order, starts[1:]):
            if len(group) > 1:
                _mark_near(texts, group, threshold, is_near)
    return is_near


def similarity(first: str, second: str) -> float:
    """J of two texts."""
    return _jaccard(_shingles(first), _shingles(second))


def _mark_near(texts: Sequence[str], group: np.ndarray, threshold: float, is_near: np.ndarray) -> None:
    kept: list[np.ndarray] = []
    for place in group:
        if not is_near[place]:
            shingles = _shingles(texts[place])
            is_near[place] = any(_jaccard(shingles, other) >= threshold for other in kept)
            if not is_near[place]:
                kept.append(shingles)


def _jaccard(first: np.ndarray, second: np.ndarray) -> float:
    if min(len(first), len(second)) == 0:
        return float(len(first) == len(second))
    shared = len(np.intersect1d(first, second, assume_unique=True))
    return shared / (len(first) + len(second) - shared)


def _shingles(text: str) -> np.ndarray:
    """Distinct hashes of the runs of 5 words; a shorter text is one run."""
    words = normalise(text).split()
    runs = {" ".join(words[i : i + SHINGLE_WORDS]) for i in range(max(1, len(words) - SHINGLE_WORDS + 1))}
    digests = b"".join(hashlib.blake2b(run.encode(), digest_size=8).digest() for run in sorted(runs))
    return np.frombuffer(digests, dtype=np.uint64)


def _signatures(texts: Sequence[str], seed: int) -> np.ndarray:
    """One hash per text and band: the least hashes of its shingles, combined."""
    rng = np.random.default_rng(seed)
    num_hashes = NUM_BANDS * ROWS_PER_BAND
    factors = rng.integers(1, 1 << 63, num_hashes, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    offsets = rng.integers(0, 1 << 63, num_hashes, dtype=np.uint64)
    mix = rng.integers(1, 1 << 63, ROWS_PER_BAND, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    return np.stack([_signature(_shingles(text), factors, offsets, mix) for text in texts])


def _signature(shingles: np.ndarray, factors: np.ndarray, offsets: np.ndarray, mix: np.ndarray) -> np.ndarray:
    # Sums and products of unsigned numbers wrap around, as hash functions may.
    hashes = shingles[:, None] * factors + offsets
    least = (hashes ^ (hashes >> np.uint64(31))).min(axis=0)
    return (least.reshape(NUM_BANDS, ROWS_PER_BAND) * mix).sum(axis=1, dtype=np.uint64)
