import numpy as np
import pytest

from mosaic_lab.attention_maps.measures import (
    RECENT,
    far_to_near,
    plateau,
    rank_correlation,
    recency_reach,
    recency_share,
    sink_share,
    unevenness,
)

CONTEXT = 116
DISTANCE = np.arange(CONTEXT)[::-1]
FLAT = np.full(CONTEXT, 1 / CONTEXT)


def bump(half_life, height=0.01, newest=0):
    """A plateau and an excess that falls to half every `half_life` tokens, before the `newest` position."""
    score_T = 0.001 + height * 0.5 ** ((DISTANCE - newest) / half_life) * (DISTANCE < 60)
    return np.where(DISTANCE < newest, 0, score_T)


def test_flat_attention():
    assert sink_share(FLAT) == 1 / CONTEXT
    assert far_to_near(FLAT) == far_to_near(FLAT, first=1) == pytest.approx(1)
    assert recency_share(FLAT) == recency_reach(FLAT) == 0


def test_halves():
    """50 positions each, in front of the last 16, which do not matter."""
    score_T = np.concatenate([np.full(50, 1.0), np.full(50, 4.0), np.full(RECENT, 100.0)])
    assert far_to_near(score_T) == 0.25
    score_T[0] = 151
    assert far_to_near(score_T) == 1 and far_to_near(score_T, first=1) == 0.25
    assert sink_share(score_T) == 151


def test_no_attention_in_either_half_has_no_ratio():
    assert np.isnan(far_to_near(np.eye(CONTEXT)[-1]))


def test_unevenness():
    """Bumps show, though both halves are alike; position 0, the recent ones and single positions do not."""
    wave_T = 2 + np.sin(2 * np.pi * np.arange(CONTEXT) / 16)
    wave_T[0], wave_T[-RECENT:] = 50, 50
    assert unevenness(wave_T) == pytest.approx(0, abs=1e-12)
    assert unevenness(FLAT) == pytest.approx(0, abs=1e-12)
    blocks_T = np.concatenate([np.full(4, 9.0), np.repeat([1, 3, 1, 3, 1, 3], 16), np.full(RECENT, 100)])
    assert unevenness(blocks_T) == 0.5


def test_decay_shows_behind_a_sink():
    score_T = 0.5 ** (DISTANCE / 20)
    score_T[0] = 100
    assert far_to_near(score_T) > 1 > far_to_near(score_T, first=1) * 5
    assert plateau(score_T) < 1


@pytest.mark.parametrize("newest", [0, 1])
def test_reach_is_where_the_excess_has_halved(newest):
    """Also where the last position has no score, as in a mosaic."""
    reaches = recency_reach(np.stack([bump(half_life, newest=newest) for half_life in (1, 3, 7)]))
    np.testing.assert_allclose(reaches, np.array([1, 3, 7]) + newest, rtol=0.01)
    assert recency_reach(bump(1.5, newest=newest)) == pytest.approx(1.5 + newest, abs=0.1)


def test_dips_have_no_reach():
    assert recency_reach(bump(3, height=-0.0005)) == 0 > recency_share(bump(3, height=-0.0005))


@pytest.mark.parametrize("newest", [0, 1])
def test_share_is_the_sum_of_the_excess(newest):
    """A last position without a score does not count as one below the plateau."""
    expected = sum(0.01 * 0.5**distance for distance in range(RECENT - newest))
    assert recency_share(bump(1, newest=newest)) == pytest.approx(expected, rel=1e-6)


def test_measures_of_many_heads_are_those_of_each():
    score_NHT = np.stack([np.stack([bump(1), bump(4)]), np.stack([FLAT, bump(2)])])
    for measure in (sink_share, far_to_near, recency_share, recency_reach):
        each = [[measure(score_T) for score_T in score_HT] for score_HT in score_NHT]
        np.testing.assert_allclose(measure(score_NHT), each)


def test_rank_correlation():
    assert rank_correlation(np.array([1, 2, 30]), np.array([-1, 5, 6])) == pytest.approx(1)
    assert rank_correlation(np.array([1, 2, 30]), np.array([6, 5, -1])) == pytest.approx(-1)
    # 1 - 6 sum(d^2) / (n (n^2 - 1)), without ties.
    assert rank_correlation(np.array([1, 2, 3, 4]), np.array([2, 1, 4, 3])) == pytest.approx(1 - 24 / 60)
    # Ranks 1.5, 1.5, 3 against 1, 2, 3.
    assert rank_correlation(np.array([5, 5, 7]), np.array([1, 2, 3])) == pytest.approx(3**0.5 / 2)


@pytest.mark.parametrize(("first", "second"), [([1, 2], [1, 2]), ([1, 2, 3], [4, 4, 4])])
def test_nothing_to_rank(first, second):
    assert np.isnan(rank_correlation(np.array(first), np.array(second)))
