"""Associative recall: keys with values, and later the keys again, each followed by its value.

~ ~ c 7 a 3 b 7 ~ ~ ~ ~ b 7 c 7 a 3        (~ is noise; all values of the second half are answers)
"""

from dataclasses import dataclass

import numpy as np

from mosaic_lab.in_context.rows import Row


@dataclass(frozen=True)
class Recall:
    """Pairs stand together somewhere in random noise, and are asked for at the end, in another order.

    Tokens: first keys, then values, then noise. No key occurs twice among the pairs of a row; values may.
    """

    num_keys: int = 64
    num_values: int = 32
    num_noise: int = 16
    counted = "pairs"
    place = "distance"

    @property
    def vocab_size(self) -> int:
        return self.num_keys + self.num_values + self.num_noise

    def check(self, length: int, count: int) -> None:
        if not 1 <= count <= self.num_keys or 4 * count > length:
            raise ValueError(
                f"{count} pairs do not fit: there are {self.num_keys} keys, and a row of {length} tokens "
                f"holds {length // 4} pairs and as many questions"
            )

    def draw_row(self, rng: np.random.Generator, length: int, count: int) -> Row:
        """Draws `count` pairs and asks for each once; places are tokens between value and answer."""
        keys = rng.permutation(self.num_keys)[:count]
        values = self.num_keys + rng.integers(self.num_values, size=count)
        pairs = np.stack([keys, values], 1)
        order = rng.permutation(count)
        ids = self.num_keys + self.num_values + rng.integers(self.num_noise, size=length)
        start = int(rng.integers(length - 4 * count + 1))
        questions = length - 2 * count
        ids[start : start + 2 * count] = pairs.ravel()
        ids[questions:] = pairs[order].ravel()
        answers = questions + 1 + 2 * np.arange(count)
        return Row(ids, answers, answers - (start + 1 + 2 * order))
