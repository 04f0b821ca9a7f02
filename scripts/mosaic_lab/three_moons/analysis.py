"""What a network has learned: who keeps track of which moon, and when it starts to tell the future."""

from collections.abc import Sequence
from itertools import permutations

import numpy as np

from mosaic_lab.three_moons.orbits import UNITS_A_SEQUENCE, least_common_multiple
from mosaic_lab.three_moons.tracking import HORIZON

# A network is disentangled if each memory's share of energy from its moon is larger.
PURE = 0.9


def energy_shares(matrix_HM: np.ndarray) -> np.ndarray:
    """Which share of a key's or a value's energy, `|W_hm|^2` in row h, comes from each moon."""
    energy_HM = np.abs(matrix_HM) ** 2
    return energy_HM / energy_HM.sum(1, keepdims=True)


def purity(phi_HM: np.ndarray, psi_HM: np.ndarray) -> float:
    """How far each of three memories keeps to a moon of its own, in its keys and in its values.

    The least share of energy in `W_phi` and `W_psi` that a memory takes from its moon, when the moons are
    given to the memories in the way that is best: 1 if both are one permuted diagonal, 1/3 if all weights are
    equal, 0 if keys and values look at different moons.
    """
    shares = np.minimum(energy_shares(phi_HM), energy_shares(psi_HM))
    return max(float(shares[range(3), moons].min()) for moons in permutations(range(3)))


def read_errors(
    context_N: Sequence[int], error_N: Sequence[float], periods: Sequence[float], length: int
) -> dict[str, float]:
    """The tracking error where the two networks should differ.

    Args:
        context_N (`Sequence[int]`): numbers of observations.
        error_N (`Sequence[float]`): mean absolute error after each.
        periods (`Sequence[float]`): of the moons, in units.
        length (`int`): observations of a sequence, which 18 units fill.

    Returns:
        `dict`: `before_max`, the mean over contexts shorter than the longest period; `midway`, at the context
        nearest to the middle between it and the least common multiple; `before_lcm`, the mean over the 25
        observations before that; `after_lcm`, the mean over 25 from 5 after it on.
    """
    context_N, error_N = np.asarray(context_N), np.asarray(error_N)
    slowest, common = (
        steps * length / UNITS_A_SEQUENCE for steps in (max(periods), least_common_multiple(periods))
    )
    spans = {
        "before_max": (0, slowest),
        "before_lcm": (common - HORIZON, common),
        "after_lcm": (common + 5, common + 5 + HORIZON),
    }
    errors = {
        name: float(error_N[(context_N >= start) & (context_N < end)].mean())
        for name, (start, end) in spans.items()
    }
    errors["midway"] = float(error_N[np.abs(context_N - (slowest + common) / 2).argmin()])
    return errors
