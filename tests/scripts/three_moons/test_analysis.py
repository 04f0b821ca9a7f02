import numpy as np
import pytest

from mosaic_lab.three_moons.analysis import energy_shares, purity, read_errors

DIAGONAL = np.diag([2, 1j, -0.3])


def test_purity_by_hand():
    assert purity(DIAGONAL, DIAGONAL) == 1
    assert purity(DIAGONAL[[2, 0, 1]], 5 * DIAGONAL[[2, 0, 1]]) == 1
    assert purity(np.ones((3, 3)), np.ones((3, 3)) * 1j) == pytest.approx(1 / 3)
    # One memory takes a tenth of its values' energy from another moon.
    values = DIAGONAL.astype(complex)
    values[0] = [0.9**0.5, 0, 0.1**0.5]
    assert purity(DIAGONAL, values) == pytest.approx(0.9)
    assert energy_shares(values)[0] == pytest.approx([0.9, 0, 0.1])


def test_keys_of_another_moon_are_not_pure():
    """As when a memory finds a fast moon's position by that of a slow one whose period is a multiple."""
    assert purity(DIAGONAL[[0, 1, 1]], DIAGONAL) == 0
    assert purity(DIAGONAL, DIAGONAL[[1, 2, 0]]) == 0


def test_where_errors_are_read():
    """Periods of 100, 200 and 300 observations, which are together again after 600."""
    context = np.arange(10, 800, 5)
    error = np.select([context < 300, context < 600], [3.0, 2.0], 1.0)
    errors = read_errors(context, error, (1.0, 2.0, 3.0), length=1800)
    assert errors == {"before_max": 3.0, "midway": 2.0, "before_lcm": 2.0, "after_lcm": 1.0}
    error[context == 450] = 7
    assert read_errors(context, error, (1.0, 2.0, 3.0), length=1800)["midway"] == 7
