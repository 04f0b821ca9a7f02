"""What counting alone can do: n-gram models of the strings that a sequence has shown so far."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from mosaic_lab.regbench.automata import PADDING, SEPARATOR, VOCAB_SIZE


def predict_ngram(ids: Sequence[int], order: int) -> np.ndarray:
    """Distributions of the symbol after each token, by an n-gram model of the tokens up to it.

    p_n(c | h) = N(hc) / N(h)                                       for symbols c seen after h
               = (1 - sum of those) p_{n-1}(c | h') / sum p_{n-1}   for others seen so far

    where h are the n - 1 symbols of the present string before c, filled up in front with a mark for its
    beginning, h' is h without the first of them, and N counts in all strings so far. N(h) counts h also where
    a string ends, the present one included: that is the chance of something new. Without other symbols, p_n
    are the seen ones, normalised.

    Args:
        ids (`Sequence[int]`): tokens of a sequence, which begins with a symbol.
        order (`int`): n, 1 or more.

    Returns:
        `np.ndarray` of shape `(time, 20)`: probabilities, 0 for padding and separator.
    """
    following = defaultdict(lambda: np.zeros(VOCAB_SIZE))
    occurrences = defaultdict(int)
    beginning = (PADDING,) * (order - 1)

    def meet(history):
        for length in range(1, order):
            occurrences[history[order - 1 - length :]] += 1
        return history

    history = meet(beginning)
    predictions = np.zeros((len(ids), VOCAB_SIZE))
    for t, token in enumerate(ids):
        if token == SEPARATOR:
            history = meet(beginning)
        else:
            for length in range(order):
                following[history[order - 1 - length :]][token] += 1
            history = meet((*history, token)[1:])
        probability = following[()] / following[()].sum()
        for length in range(1, order):
            context = history[order - 1 - length :]
            count = following[context]
            rest = np.where(count > 0, 0, probability)
            if rest.any():
                seen = count / occurrences[context]
                probability = seen + (1 - seen.sum()) * rest / rest.sum()
            else:
                probability = count / count.sum()
        predictions[t] = probability
    return predictions
