import numpy as np
import pytest

from mosaic_lab.attention_maps.windows import spread_windows


@pytest.mark.parametrize("number", [1, 2, 7, 10])
def test_windows_that_fit_do_not_overlap(number):
    windows = spread_windows(np.arange(100, 203), context=10, number=number)
    assert len(windows) == number and windows.start_N[0] == 0
    assert (np.diff(windows.start_N) >= 10).all()
    if number > 1:
        assert windows.batch(number - 1, 1)[0, -1] == 202


@pytest.mark.parametrize(("number", "expected"), [(50, 50), (94, 94), (5000, 94)])
def test_more_windows_begin_at_different_tokens(number, expected):
    windows = spread_windows(np.arange(103), context=10, number=number)
    assert len(set(windows.start_N)) == len(windows) == expected
    assert (windows.start_N.min(), windows.start_N.max()) == (0, 93)
    assert np.ptp(np.diff(windows.start_N)) <= 1


def test_batches_are_all_windows():
    windows = spread_windows(np.arange(40, dtype=np.int32), context=10, number=7)
    batches = [windows.batch(first, 3) for first in range(0, 7, 3)]
    assert [batch.shape for batch in batches] == [(3, 10), (3, 10), (1, 10)]
    rows = np.concatenate(batches)
    assert (rows == windows.start_N[:, None] + np.arange(10)).all() and rows.dtype == np.int64
