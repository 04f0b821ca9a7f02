"""The sky: three moons on circular orbits around a distant planet (paper, section 3).

Shapes: T time, M moons.
"""

from itertools import combinations
from math import gcd, lcm, pi

import numpy as np
import torch
from torch.utils.data import Dataset

# Periods are given in units of which so many fill a sequence. Their least common multiple is at most 6 units,
# and so fits into it three times.
UNITS_A_SEQUENCE = 18
PERIODS = ("grid", "free")

# The half-integer periods of the original code: of the 35 triples up to 3.5, nine with the smallest least
# common multiple; at 6 there are more, of which these are the ones that numpy's argsort puts first there. The
# last one is held out, though its ratios are in training at half the scale.
GRID = {
    "train": (
        (0.5, 1.0, 2.0),
        (0.5, 1.0, 1.5),
        (0.5, 1.0, 3.0),
        (0.5, 1.5, 3.0),
        (1.0, 1.5, 3.0),
        (0.5, 1.0, 2.5),
        (1.0, 1.5, 2.0),
        (0.5, 1.5, 2.0),
    ),
    "validation": ((1.0, 2.0, 3.0),),
}
PHASE = 0.3
START_POINTS = 10_000

# Freely drawn periods have ratios of integers whose least common multiple is at most so many times the
# smallest of them may be; every fourth of these triples is held out.
LARGEST_MULTIPLE = 12
HELD_OUT = 4

# The periods, in units, of the curves of figures 4 and 5: known from training, and held out.
TRACKED = {
    "grid": {"train": (0.5, 1.0, 2.5), "validation": (1.0, 2.0, 3.0)},
    "free": {"train": (0.6, 1.2, 3.0), "validation": (1.0, 1.5, 2.0)},
}


def least_common_multiple(periods: tuple[float, float, float]) -> float:
    """When all moons are back where they were: of periods that are multiples of a tenth."""
    return lcm(*(round(10 * period) for period in periods)) / 10


def ratios(split: str) -> list[tuple[int, int, int]]:
    """The coprime triples by which freely drawn periods are related in `train` or in `validation`."""
    triples = [
        triple
        for triple in combinations(range(1, LARGEST_MULTIPLE + 1), 3)
        if gcd(*triple) == 1 and lcm(*triple) <= LARGEST_MULTIPLE
    ]
    return [triple for i, triple in enumerate(triples) if (i % HELD_OUT == 0) == (split == "validation")]


def draw_periods(rng: np.random.Generator, periods: str, split: str) -> np.ndarray:
    """Periods of three moons in units, `(3,)`: one of `GRID`, or `free` ones.

    Those are in a random order, and scaled to a least common multiple of 4.5 to 6 units.
    """
    if periods == "grid":
        return np.array(GRID[split][rng.integers(len(GRID[split]))])
    triples = ratios(split)
    triple = triples[rng.integers(len(triples))]
    return rng.permutation(triple) * rng.uniform(4.5, 6.0) / lcm(*triple)


def draw_phases(rng: np.random.Generator, periods: str, period_M: np.ndarray, length: int) -> np.ndarray:
    """Angles of the moons at the beginning, `(3,)`, in radians: independent ones for `free` periods.

    For those of the `grid` it is a random one of 10,000 steps in the history of a sky in which all moons
    started at 0.3, as in the original code.
    """
    if periods == "grid":
        return PHASE + 2 * pi * rng.integers(START_POINTS) * UNITS_A_SEQUENCE / length / period_M
    return rng.uniform(0, 2 * pi, 3)


def observe(period_M: np.ndarray, phase_M: np.ndarray, length: int) -> torch.Tensor:
    """`x_t = exp(i (2 pi t / p + phase))` for each moon: complex64, `(length, 3)`.

    Args:
        period_M (`np.ndarray` of shape `(3,)`): in units, `length / 18` steps each.
        phase_M (`np.ndarray` of shape `(3,)`): in radians.
        length (`int`): observations.
    """
    unit_T1 = np.arange(length)[:, None] * UNITS_A_SEQUENCE / length
    return torch.from_numpy(np.exp(1j * (2 * pi * unit_T1 / period_M + phase_M))).to(torch.complex64)


class Skies(Dataset):
    """Sequences of `length` observations; number i is the same whenever it is asked for.

    Args:
        size (`int`): how many.
        length (`int`): observations of each.
        periods (`str`): `grid` or `free`.
        split (`str`): `train` or `validation`, without common periods, or, if they are free, common ratios.
        seed (`int`): source of all chance, together with i.
        common (`tuple`, *optional*): periods in units that all sequences share.
    """

    def __init__(
        self,
        size: int,
        length: int,
        periods: str,
        split: str,
        seed: int,
        common: tuple[float, float, float] | None = None,
    ):
        self.size, self.length, self.periods, self.split, self.seed = size, length, periods, split, seed
        self.common = common

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        if not 0 <= i < self.size:
            raise IndexError(i)
        rng = np.random.default_rng([self.seed, ("train", "validation").index(self.split), i])
        period_M = self.common
        if period_M is None:
            period_M = draw_periods(rng, self.periods, self.split)
        period_M = np.asarray(period_M)
        phase_M = draw_phases(rng, self.periods, period_M, self.length)
        return {"positions": observe(period_M, phase_M, self.length)}
