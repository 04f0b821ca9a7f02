"""Classification in context with anonymous labels: classes are new in each row, their names arbitrary tokens.

s p s q X  t u q u Y  p s q s X  t t u r Y ...    (four symbols of an example, then the label of its class)
"""

from dataclasses import dataclass

import numpy as np

from mosaic_lab.in_context.rows import Row

# Symbols of an example.
EXAMPLE_SIZE = 4
# Symbols that a class prefers, and how often it takes one of them.
NUM_PREFERRED, PREFERENCE = 4, 0.8


@dataclass(frozen=True)
class Labels:
    """Examples of classes, each a distribution over symbols; both these and labels are new in each row.

    Tokens: symbols, labels. Labels of a class's first example in a row cannot be known, and do not count.
    """

    num_symbols: int = 32
    num_labels: int = 16
    counted = "classes"
    place = "shots"

    @property
    def vocab_size(self) -> int:
        return self.num_symbols + self.num_labels

    def check(self, length: int, count: int) -> None:
        most = min(self.num_labels, self.num_symbols // NUM_PREFERRED)
        if not 1 <= count <= most or length % (EXAMPLE_SIZE + 1) or length <= count * (EXAMPLE_SIZE + 1):
            raise ValueError(
                f"{count} classes in rows of {length} tokens: must be 1 to {most} classes, and a multiple of "
                f"{EXAMPLE_SIZE + 1} tokens that holds more examples than classes"
            )

    def draw_row(self, rng: np.random.Generator, length: int, count: int) -> Row:
        """Draws `count` classes and examples of them; places are earlier examples of the same class."""
        # Classes prefer different symbols.
        preferred = rng.permutation(self.num_symbols)[: count * NUM_PREFERRED].reshape(count, NUM_PREFERRED)
        labels = self.num_symbols + rng.permutation(self.num_labels)[:count]
        number = length // (EXAMPLE_SIZE + 1)
        classes = rng.integers(count, size=number)
        shape = (number, EXAMPLE_SIZE)
        typical = preferred[classes[:, None], rng.integers(NUM_PREFERRED, size=shape)]
        symbols = np.where(
            rng.random(shape) < PREFERENCE, typical, rng.integers(self.num_symbols, size=shape)
        )
        ids = np.concatenate([symbols, labels[classes, None]], 1).ravel()
        seen = np.eye(count, dtype=np.int64)[classes].cumsum(0)
        shots = seen[np.arange(number), classes] - 1
        known = np.flatnonzero(shots)
        return Row(ids, known * (EXAMPLE_SIZE + 1) + EXAMPLE_SIZE, shots[known])
