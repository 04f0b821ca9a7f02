from itertools import combinations
from math import gcd, lcm, pi

import numpy as np
import pytest
import torch

from mosaic_lab.three_moons.orbits import GRID, TRACKED, Skies, least_common_multiple, observe, ratios

LENGTH = 800


def coprime(periods):
    """The ratios of periods in units that are multiples of a tenth, and their order."""
    tenths = sorted(round(10 * period) for period in periods)
    return tuple(period // gcd(*tenths) for period in tenths)


def find_periods(position_T):
    """The period in steps of one moon, from the angle between neighbours."""
    return 2 * pi / np.angle(position_T[1:] / position_T[:-1]).mean()


def test_the_released_grid():
    """Nine of the 35 triples, none with a larger least common multiple than any that is left out."""
    triples = list(combinations(np.arange(0.5, 3.6, 0.5), 3))
    assert len(triples) == 35
    chosen = {*GRID["train"], *GRID["validation"]}
    assert len(chosen) == 9 and chosen <= set(triples)
    largest = max(least_common_multiple(periods) for periods in chosen)
    assert largest == 6
    assert all(least_common_multiple(periods) >= largest for periods in set(triples) - chosen)


@pytest.mark.parametrize("periods", ["grid", "free"])
def test_skies(periods):
    """Circles whose periods fit into a third of the sequence together, and do so as their ratios say."""
    for split in ("train", "validation"):
        for sky in Skies(40, LENGTH, periods, split, seed=0):
            position_TM = sky["positions"].numpy()
            assert position_TM.shape == (LENGTH, 3) and position_TM.dtype == np.complex64
            assert np.abs(np.abs(position_TM) - 1).max() < 1e-6
            steps = [find_periods(position_TM[:, moon].astype(np.complex128)) for moon in range(3)]
            common = next(
                multiple * min(steps)
                for multiple in range(1, 13)
                if all(
                    abs(multiple * min(steps) / step - round(multiple * min(steps) / step)) < 1e-3
                    for step in steps
                )
            )
            assert common <= LENGTH / 3 * (1 + 1e-4)


def test_no_periods_are_in_both_splits():
    """The grid's held-out triple is another one, but twice as long as one in training, as it was released."""
    assert set(GRID["validation"]).isdisjoint(GRID["train"])
    assert tuple(period / 2 for period in GRID["validation"][0]) in GRID["train"]
    train, validation = ratios("train"), ratios("validation")
    assert set(train).isdisjoint(validation) and len(train) > 10 and len(validation) > 4
    assert all(gcd(*triple) == 1 and lcm(*triple) <= 12 for triple in (*train, *validation))
    for periods, by_split in TRACKED.items():
        known = {
            "grid": {split: {coprime(p) for p in GRID[split]} for split in GRID},
            "free": {split: set(ratios(split)) for split in GRID},
        }[periods]
        for split, tracked in by_split.items():
            assert coprime(tracked) in known[split]
            # Room for the difference between the networks.
            assert max(tracked) <= least_common_multiple(tracked) / 2 and least_common_multiple(tracked) <= 6


def test_a_sky_is_the_same_whenever_it_is_asked_for():
    skies = Skies(10, LENGTH, "free", "train", seed=3)
    late = skies[7]["positions"]
    assert torch.equal(list(skies)[7]["positions"], late)
    for other in (
        skies[6],
        Skies(10, LENGTH, "free", "validation", 3)[7],
        Skies(10, LENGTH, "free", "train", 4)[7],
    ):
        assert not torch.equal(other["positions"], late)
    with pytest.raises(IndexError):
        skies[10]


def test_common_periods():
    skies = Skies(5, LENGTH, "grid", "validation", seed=0, common=(1.0, 2.0, 3.0))
    for sky in skies:
        steps = [find_periods(sky["positions"][:, moon].numpy().astype(np.complex128)) for moon in range(3)]
        assert steps == pytest.approx([LENGTH / 18, LENGTH / 9, LENGTH / 6], rel=1e-4)
    assert observe(np.ones(3), np.array([0, pi / 2, pi]), 18)[:, 0].real == pytest.approx([1] * 18, abs=1e-6)
