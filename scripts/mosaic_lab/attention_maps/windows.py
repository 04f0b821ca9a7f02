"""Sequences of equal length out of one stream of tokens."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Windows:
    """Some windows of `context` tokens of a stream, which may overlap.

    Args:
        stream_L (`np.ndarray` of shape `(length,)`): token ids.
        start_N (`np.ndarray` of shape `(windows,)`): where each window begins.
        context (`int`): tokens a window.
    """

    stream_L: np.ndarray
    start_N: np.ndarray
    context: int

    def __len__(self) -> int:
        return len(self.start_N)

    def batch(self, first: int, size: int) -> np.ndarray:
        """Windows `first` to `first + size - 1`, int64 `(size, context)`; fewer at the end."""
        start_B1 = self.start_N[first : first + size, None]
        return self.stream_L[start_B1 + np.arange(self.context)].astype(np.int64)


def spread_windows(stream_L: np.ndarray, context: int, number: int) -> Windows:
    """Windows whose starts are spread evenly over the stream, from its first token to its last.

    They overlap if `number * context` tokens are more than the stream has, and only then; if the stream has
    fewer starts than `number`, each start is taken once.

    Args:
        stream_L (`np.ndarray` of shape `(length,)`): token ids, at least `context`.
        context (`int`): tokens a window.
        number (`int`): windows wanted.
    """
    last_start = len(stream_L) - context
    start_N = np.linspace(0, last_start, min(number, last_start + 1)).astype(np.int64)
    return Windows(stream_L, start_N, context)
