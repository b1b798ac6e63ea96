"""Tests of differences: exact values, a library's, and how often they err."""

import math
from itertools import product

import numpy as np
import pytest
from scipy.stats import binomtest

from zephyr.stats.significance import (
    PairedTestResult,
    holm_correction,
    mcnemar_p_value,
    paired_test,
    required_sample_size,
)


@pytest.mark.parametrize("wins", [0, 3, 10, 55])
@pytest.mark.parametrize("losses", [0, 1, 10, 31])
def test_mcnemar_is_the_exact_binomial_test(wins: int, losses: int) -> None:
    if wins + losses:
        expected = binomtest(wins, wins + losses).pvalue
        assert mcnemar_p_value(wins, losses) == pytest.approx(expected, rel=1e-9)
    else:
        assert mcnemar_p_value(0, 0) == 1


def test_random_signs_come_near_all_signs() -> None:
    """Of ten differences all 1,024 signs can be tried."""
    differences = np.random.default_rng(1).normal(0.6, 1, 10)
    observed = abs(differences.sum()) - 1e-9
    exact = np.mean(
        [abs(np.dot(signs, differences)) >= observed for signs in product((1, -1), repeat=10)]
    )
    assert paired_test(differences, np.zeros(10), kind="mean").p == pytest.approx(exact, abs=0.005)


def test_perplexity_is_compared_by_its_sums() -> None:
    values, base = [30.0] * 5 + [40.0] * 5, [33.0] * 5 + [42.0] * 5
    found = paired_test(values, base, [9] * 10, [9] * 10, kind="exp-mean")
    assert (found.mean, found.deviation) == (-2.5, 0.5)
    assert found.p == pytest.approx(2 / 1024, abs=1e-3)


def test_right_and_wrong_take_the_exact_test_and_halves_the_random_one() -> None:
    ours, theirs = [1] * 12 + [0] * 3, [0] * 10 + [1] * 5
    assert paired_test(ours, theirs, kind="proportion").p == mcnemar_p_value(10, 3)
    ours[0], theirs[0] = 0.5, 0.5
    halved = paired_test(ours, theirs, kind="proportion")
    assert halved.p == pytest.approx(mcnemar_p_value(9, 3), abs=0.01)


def test_fewer_than_six_differing_items_are_no_evidence() -> None:
    assert paired_test([1] * 5 + [0] * 90, [0] * 95, kind="mean").p == 1
    assert paired_test([1] * 6 + [0] * 90, [0] * 96, kind="mean").p < 0.05


def test_holm_by_hand() -> None:
    """Four tests: the smallest counts four times, and none comes below one before it."""
    assert holm_correction([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm_correction([0.5, 0.9]) == [1.0, 1.0]
    assert holm_correction([]) == []


def test_tables_without_differences_are_seldom_wrong() -> None:
    """Of 400 tables of ten comparisons, at most 5 % (and three deviations) hold a wrong one."""
    random = np.random.default_rng(5)
    wrong = plain = 0
    for _ in range(400):
        p_values = []
        for _ in range(10):
            ours, theirs = random.random((2, 60)) < 0.6
            p_values.append(
                mcnemar_p_value(int((ours & ~theirs).sum()), int((theirs & ~ours).sum()))
            )
        wrong += min(holm_correction(p_values)) <= 0.05
        plain += min(p_values) <= 0.05
    assert wrong / 400 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)
    assert plain / 400 > 0.1  # uncorrected, they are not


@pytest.mark.parametrize("comparisons", [1, 20])
def test_with_enough_items_four_of_five_tables_tell(comparisons: int) -> None:
    """8 % of answers become right and 4 % wrong: what the formula says, the exact test does."""
    found = PairedTestResult(0.2, 0.04, math.sqrt(0.12 - 0.04**2))
    n = required_sample_size(found, comparisons)
    assert n is not None
    random = np.random.default_rng(2)
    outcomes = random.multinomial(n, [0.08, 0.04, 0.88], 500)
    power = np.mean(
        [mcnemar_p_value(int(w), int(lost)) <= 0.05 / comparisons for w, lost, _ in outcomes]
    )
    assert power == pytest.approx(0.8, abs=0.08)


def test_where_nothing_differs_no_number_could_tell() -> None:
    assert required_sample_size(PairedTestResult(1.0, 0.0, 0.1)) is None
