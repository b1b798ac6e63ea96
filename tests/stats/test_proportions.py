"""Intervals of proportions: by hand, by scipy, by a published example, and by their coverage."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from tests.stats.coverage import (
    paired_coverage,
    proportion_coverage,
    share_pairs,
    tango_interval,
    wilson_interval,
    win_rate_coverage,
)
from zephyr.stats.proportions import clopper_pearson_interval, paired_difference_interval

SHARES = share_pairs()


def test_of_none_and_all_by_hand() -> None:
    """All ten succeed one time in forty where the share is 0.025^(1/10)."""
    assert clopper_pearson_interval(0, 10) == pytest.approx((0, 1 - 0.025 ** (1 / 10)))
    assert clopper_pearson_interval(10, 10) == pytest.approx((0.025 ** (1 / 10), 1))


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_it_is_scipys_holds_the_share_and_mirrors(case: tuple[int, int]) -> None:
    successes, n = case
    low, high = clopper_pearson_interval(successes, n)
    expected = binomtest(successes, n).proportion_ci(method="exact")
    assert (low, high) == pytest.approx((expected.low, expected.high), rel=1e-6, abs=1e-12)
    assert 0 <= low <= successes / n <= high <= 1
    assert clopper_pearson_interval(n - successes, n) == pytest.approx((1 - high, 1 - low))


def test_a_difference_by_hand() -> None:
    """Where none is lost, low is 10/10 - sqrt(a² + b² + 2 r a b), of the distances a and b.

    a = b = 1 - 0.025^(1/10); r is 1, for its estimate sqrt(10.5 / 0.5 x 0.5 / 10.5) is.
    """
    distance = 1 - 0.025 ** (1 / 10)
    assert paired_difference_interval(10, 0, 10) == pytest.approx((1 - 2 * distance, 1))


def test_where_none_differ_the_interval_is_that_of_none_on_either_side() -> None:
    """Of 250 items: 1 - 0.025^(1/250) = 1.46 %, and a hair more for the correlation."""
    low, high = paired_difference_interval(0, 0, 250)
    assert -low == high == pytest.approx(1 - 0.025 ** (1 / 250), rel=2e-3)


@given(st.integers(1, 300).flatmap(lambda n: st.tuples(*[st.integers(0, n)] * 2, st.just(n))))
def test_a_difference_is_within_its_interval_and_turns_round(case: tuple[int, int, int]) -> None:
    wins, losses, n = min(case[:2]), max(case[:2]) - min(case[:2]), case[2]
    low, high = paired_difference_interval(wins, losses, n)
    assert -1 - 1e-9 <= low <= (wins - losses) / n <= high <= 1 + 1e-9
    assert paired_difference_interval(losses, wins, n) == pytest.approx((-high, -low))


def test_tangos_interval_of_a_published_table_lies_within_ours() -> None:
    """1 and 7 of 21 children changed (Bentur 2009): -0.517 to -0.026 (Fagerland et al. 2014)."""
    [low], [high] = tango_interval(np.array([1.0]), np.array([7.0]), 21)
    assert (low, high) == pytest.approx((-0.517, -0.026), abs=5e-4)
    ours = paired_difference_interval(1, 7, 21)
    assert ours[0] < low
    assert high < ours[1]


@pytest.mark.parametrize("n", [5, 10, 30, 100, 300])
def test_a_proportion_is_covered_wherever_it_lies(n: int) -> None:
    """Enumerated, so without a random error; just beside the ends the coverage is least."""
    assert min(covered for _, covered in proportion_coverage(n)) >= 0.95 - 1e-7
    assert min(covered for _, covered in proportion_coverage(n, wilson_interval)) < 0.84


@pytest.mark.parametrize("n", [5, 10, 24, 60, 120])
def test_a_paired_difference_is_covered_wherever_the_shares_lie(n: int) -> None:
    assert min(covered for _, covered in paired_coverage(n, SHARES)) >= 0.95


@pytest.mark.parametrize(
    ("n", "rates"),
    [(250, (0.05, 0.0)), (250, (0.0, 0.05)), (200, (0.02, 0.0)), (320, (0.14, 0.02))],
)
def test_where_nearly_all_that_differ_fall_on_one_side(n: int, rates: tuple[float, float]) -> None:
    """The interval given how many differ held 47, 58 and 84 %; of 200 Tango's holds 93 %."""
    [(_, covered)] = paired_coverage(n, [rates])
    assert 0.95 <= covered <= 0.985
    [(_, tangos)] = paired_coverage(n, [rates], tango=True)
    assert tangos >= 0.93


def test_it_is_little_wider_than_tangos() -> None:
    for n, rates, most in ((24, (0.2, 0.1), 1.15), (320, (0.14, 0.02), 1.06)):
        wins, losses = (round(n * rate) for rate in rates)
        [low], [high] = tango_interval(np.array([float(wins)]), np.array([float(losses)]), n)
        ours = paired_difference_interval(wins, losses, n)
        assert 1 < (ours[1] - ours[0]) / (high - low) < most


@pytest.mark.parametrize("n", [5, 12, 50])
def test_a_win_rate_with_ties_is_covered(n: int) -> None:
    assert min(covered for _, covered in win_rate_coverage(n, SHARES)) >= 0.95


def test_a_tie_is_half_a_success() -> None:
    low, high = clopper_pearson_interval(0.5, 10)
    assert clopper_pearson_interval(0, 10)[0] < low < clopper_pearson_interval(1, 10)[0]
    assert clopper_pearson_interval(0, 10)[1] < high < clopper_pearson_interval(1, 10)[1]
    assert math.isclose(low, 1 - clopper_pearson_interval(9.5, 10)[1], rel_tol=1e-9)
