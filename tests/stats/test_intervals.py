"""Confidence intervals: by hand, by their coverage, and of paired differences."""

import math

import numpy as np
import pytest
from scipy.stats import t

from zephyr.stats.bootstrap import RESAMPLES
from zephyr.stats.intervals import (
    Estimate,
    StatisticKind,
    decide_verdict,
    estimate,
    explain_disagreement,
    may_undercover,
    paired_difference,
)
from zephyr.stats.proportions import clopper_pearson_interval, paired_difference_interval
from zephyr.stats.significance import mcnemar_p_value

KINDS: tuple[StatisticKind, ...] = ("proportion", "mean", "exp-mean")


Z = 1.959963984540054


def test_successes_are_counted_exactly_and_ties_by_half() -> None:
    plain = estimate([1, 0, 1, 1], kind="proportion")
    assert plain == Estimate(0.75, *clopper_pearson_interval(3, 4), 4)
    assert estimate([1, 0, 1, 1], kind="mean", bounded=True) == plain
    tied = estimate([1, 0, 0.5, 0.5] * 25, kind="proportion")
    assert tied == Estimate(0.5, *clopper_pearson_interval(50, 100), 100)


def test_a_score_outside_its_bounds_is_refused() -> None:
    with pytest.raises(AssertionError, match=r"within \[0, 1\]"):
        estimate([0.5, 1.5], kind="mean", bounded=True)


def test_equal_scores_within_bounds_are_no_certainty() -> None:
    """Twelve zeros: a mean of which all twelve are zero one time in forty is 1 - 0.025^(1/12)."""
    found = estimate([0.0] * 12, kind="mean", bounded=True)
    assert found == pytest.approx((0, 0, 1 - 0.025 ** (1 / 12), 12))
    equal = estimate([0.3] * 12, kind="mean", bounded=True)
    assert equal[1:3] == pytest.approx(clopper_pearson_interval(3.6, 12))
    # one item of 24 isn't zero: more than a third of the resamples have no spread at all
    one = estimate([0.3] + [0.0] * 23, kind="mean", bounded=True)
    assert 0 < one.low < 0.3 / 24 < one.high == clopper_pearson_interval(0.3, 24)[1]
    without_bounds = estimate([0.3] + [0.0] * 23, kind="mean")
    assert 0.03 < without_bounds.high < 0.06


def test_weights_make_items_fewer() -> None:
    """One item of weight 9 and nine of weight 1: 18² / (81 + 9) = 3.6 items."""
    found = estimate([1.0] * 10, [9.0] + [1.0] * 9, kind="mean", bounded=True)
    assert found[:3] == pytest.approx((1, *clopper_pearson_interval(3.6, 3.6)))


def test_of_normal_numbers_the_interval_is_nearly_students() -> None:
    """And never narrower; scipy has the quantile."""
    values = np.random.default_rng(3).normal(size=300)
    found = estimate(values, kind="mean")
    low, high = t.interval(0.95, 299, values.mean(), values.std(ddof=1) / math.sqrt(300))
    assert found.low <= low + 1e-12
    assert found.high >= high - 1e-12
    assert found.high - found.low == pytest.approx(high - low, rel=0.08)


def test_two_items_by_hand() -> None:
    """1 and 4 of weights 3 and 1: mean 7/4, errors -9/4 and 9/4, t of one degree is 12.706.

    Half of the resamples have one item twice and no error; all others are the sample again.
    """
    error = math.sqrt(2 * (9 / 4) ** 2 / 2) / 2
    found = estimate([1, 4], [3, 1], kind="mean")
    half = 12.7062047 * error
    assert found == pytest.approx((7 / 4, 7 / 4 - half, 7 / 4 + half, 2))


def test_mean_is_weighted() -> None:
    assert estimate([1, 4], [3, 1], kind="mean").value == pytest.approx(7 / 4)
    assert estimate([2, 2, 2], kind="mean") == Estimate(2, 2, 2, 3)


def test_exp_mean_is_the_exponential_of_the_ratio_of_sums() -> None:
    """exp((6 + 2) / (3 + 1)) = e²; the interval spans the windows' own e² and e²."""
    interval = estimate([6, 2], [3, 1], kind="exp-mean")
    assert interval == pytest.approx((math.e**2, math.e**2, math.e**2, 2))
    mixed = estimate([1, 3] * 50, [1, 1] * 50, kind="exp-mean")
    assert mixed.value == pytest.approx(math.e**2)
    assert mixed.low < math.e**2 < mixed.high
    # the logarithm has the bootstrap error of a mean: deviation 1 over the root of 100
    assert math.log(mixed.high / mixed.low) / (2 * Z * 0.1) == pytest.approx(1, abs=0.1)


def test_the_same_seed_gives_the_same_interval_whatever_the_size_of_blocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = np.random.default_rng(0).normal(size=33)
    first = estimate(values, kind="mean", seed=3)
    assert first == estimate(values, kind="mean", seed=3)
    assert first != estimate(values, kind="mean", seed=4)
    monkeypatch.setattr("zephyr.stats.bootstrap._BLOCK", 33 * RESAMPLES // 8)
    assert first == pytest.approx(estimate(values, kind="mean", seed=3), abs=0.05)


def test_a_difference_is_paired() -> None:
    """A shift of 0.1 under noise of 1 is seen when pairs share the noise, and only then."""
    noise = np.random.default_rng(0).normal(size=200)
    paired = paired_difference(noise + 0.1, noise, kind="mean")
    assert paired == pytest.approx((0.1, 0.1, 0.1, 200))
    assert decide_verdict(paired, "higher") == "better"
    assert decide_verdict(paired, "lower") == "worse"
    shuffled = paired_difference(noise + 0.1, noise[::-1], kind="mean")
    assert shuffled.value == pytest.approx(0.1)
    assert decide_verdict(shuffled, "higher") == "cannot tell"


def test_a_difference_from_itself_is_nothing() -> None:
    """Within bounds it has an interval all the same: other items might have differed."""
    values = [1.0, 0.0, 0.5, 1.0] * 5
    for kind in KINDS:
        difference = paired_difference(values, values, kind=kind)
        high = paired_difference_interval(0, 0, 20)[1] if kind == "proportion" else 0
        assert difference == (0, -high, high, 20)
        assert decide_verdict(difference, "higher") == "cannot tell"


def test_a_difference_turns_round_with_its_sides() -> None:
    ours, theirs = np.random.default_rng(5).random((2, 40))
    forth = paired_difference(ours, theirs, kind="mean")
    back = paired_difference(theirs, ours, kind="mean")
    assert back == pytest.approx((-forth.value, -forth.high, -forth.low, 40))


def test_a_difference_of_perplexities() -> None:
    """Windows of 10 tokens: exp(20/10) - exp(10/10) for every pair."""
    difference = paired_difference([20] * 8, [10] * 8, [10] * 8, [10] * 8, kind="exp-mean")
    assert difference == pytest.approx((math.e**2 - math.e,) * 3 + (8,))
    assert decide_verdict(difference, "lower") == "worse"


def test_few_pairs_tell_nothing() -> None:
    """All of five pairs on one side happens by chance in 1 of 16 draws, of six in 1 of 32."""
    assert (
        decide_verdict(paired_difference([1] * 5, [0] * 5, kind="mean"), "higher") == "cannot tell"
    )
    assert decide_verdict(paired_difference([1] * 6, [0] * 6, kind="mean"), "higher") == "better"


def test_where_the_interval_leaves_out_zero_mcnemars_exact_test_nearly_rejects() -> None:
    """They are two methods; of 256 outcomes of 60 items eight differ, at p from 0.02 to 0.07."""
    differing = []
    for wins in range(16):
        for losses in range(16):
            same = [1.0] * (60 - wins - losses)
            ours, theirs = [1.0] * wins + [0.0] * losses, [0.0] * wins + [1.0] * losses
            difference = paired_difference(ours + same, theirs + same, kind="proportion")
            assert difference.value == pytest.approx((wins - losses) / 60)
            assert difference.low <= difference.value <= difference.high
            p = mcnemar_p_value(wins, losses)
            if (decide_verdict(difference, "higher") != "cannot tell") != (p <= 0.05):
                differing.append(p)
    assert len(differing) <= 10
    assert all(0.02 < p < 0.08 for p in differing)


def test_five_of_many_items_that_differ_tell_nothing() -> None:
    """A bootstrap of these alone would be sure: it never draws a loss."""
    base = np.random.default_rng(0).random(200)
    for changed, verdict in ((5, "cannot tell"), (6, "better")):
        ours = base.copy()
        ours[:changed] += 0.5
        assert decide_verdict(paired_difference(ours, base, kind="mean"), "higher") == verdict


def test_where_no_side_is_better_there_is_no_verdict() -> None:
    assert decide_verdict(Estimate(1, 0.5, 1.5, 100), None) == "cannot tell"


@pytest.mark.parametrize("values", [[], [float("nan")], [float("inf")]])
def test_what_is_no_number_is_refused(values: list[float]) -> None:
    with pytest.raises(AssertionError):
        estimate(values, kind="mean")


@pytest.mark.parametrize(
    ("low", "p", "corrected", "reason"),
    [
        (0.01, 0.01, 0.03, None),
        (0.01, 0.01, 0.07, "not after correction"),
        (0.01, 0.06, 0.20, "test not significant"),
        (0.01, 0.06, None, "test not significant"),
        (0.01, 0.01, None, None),
        (-0.01, 0.01, 0.03, "interval holds zero"),
        (-0.01, 0.04, 0.08, None),
        (-0.01, 0.04, None, "interval holds zero"),
        (-0.01, 0.40, 0.80, None),
    ],
)
def test_where_interval_and_verdict_contradict_it_says_why(
    low: float, p: float, corrected: float | None, reason: str | None
) -> None:
    difference = Estimate(0.05, low, 0.1, 99)
    assert explain_disagreement(difference, p, corrected) == reason
    leaves_out_zero = low > 0
    is_decided = decide_verdict(difference, "higher", p if corrected is None else corrected)
    if leaves_out_zero != (is_decided != "cannot tell"):
        assert reason is not None


def test_only_few_items_without_bounds_may_hold_less() -> None:
    few, many = Estimate(1, 0, 2, 49), Estimate(1, 0, 2, 50)
    assert may_undercover("mean", few, bounded=False)
    assert may_undercover("exp-mean", few, bounded=False)
    assert not may_undercover("mean", few, bounded=True)
    assert not may_undercover("proportion", few, bounded=False)
    assert not may_undercover("mean", many, bounded=False)
