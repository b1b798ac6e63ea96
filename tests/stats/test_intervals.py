"""Confidence intervals: by hand, by their coverage, and of paired differences."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zephyr.stats.intervals import (
    RESAMPLES,
    Estimate,
    StatisticKind,
    Z,
    decide_verdict,
    estimate,
    paired_difference,
    wilson_interval,
)

KINDS: tuple[StatisticKind, ...] = ("proportion", "mean", "exp-mean")


def test_wilson_of_five_in_ten_by_hand() -> None:
    """p = 1/2: the middle stays, the half width is Z/2 / sqrt(n + Z²), since
    Z sqrt(p(1-p)/n + Z²/4n²) / (1 + Z²/n) = Z/2n sqrt(n + Z²) n / (n + Z²)."""
    low, high = wilson_interval(5, 10)
    half = Z / 2 / math.sqrt(10 + Z * Z)
    assert (low, high) == pytest.approx((0.5 - half, 0.5 + half))
    assert (round(low, 4), round(high, 4)) == (0.2366, 0.7634)


def test_wilson_of_none_and_all_by_hand() -> None:
    """p = 0: low is 0, high is (Z²/2n + Z²/2n) / (1 + Z²/n) = Z² / (n + Z²)."""
    assert wilson_interval(0, 10) == pytest.approx((0, Z * Z / (10 + Z * Z)))
    assert wilson_interval(10, 10) == pytest.approx((10 / (10 + Z * Z), 1))


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_share_and_mirrors(case: tuple[int, int]) -> None:
    successes, n = case
    low, high = wilson_interval(successes, n)
    assert 0 <= low <= successes / n <= high <= 1
    assert wilson_interval(n - successes, n) == pytest.approx((1 - high, 1 - low))


def test_successes_get_wilson_and_ties_the_bootstrap() -> None:
    plain = estimate([1, 0, 1, 1], kind="proportion")
    assert plain == Estimate(0.75, *wilson_interval(3, 4), 4)
    tied = estimate([1, 0, 0.5, 0.5] * 25, kind="proportion")
    assert tied.value == 0.5
    spread = np.std([1, 0, 0.5, 0.5]) / 10
    assert (tied.high - tied.low) / (2 * Z * spread) == pytest.approx(1, abs=0.1)


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


def test_the_bootstrap_covers_what_it_promises() -> None:
    """Of 300 samples of 60 exponential numbers about 95 % have the true mean in their interval.

    Three standard errors of a share of 300 are 3.8 points, and the percentile bootstrap of a
    skewed sample falls a point or two short.
    """
    random = np.random.default_rng(1)
    num_covered = 0
    for seed in range(300):
        interval = estimate(random.exponential(size=60), kind="mean", seed=seed)
        num_covered += interval.low <= 1 <= interval.high
    assert 0.895 <= num_covered / 300 <= 0.985


def test_the_same_seed_gives_the_same_interval_whatever_the_size_of_blocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = np.random.default_rng(0).normal(size=33)
    first = estimate(values, kind="mean", seed=3)
    assert first == estimate(values, kind="mean", seed=3)
    assert first != estimate(values, kind="mean", seed=4)
    monkeypatch.setattr("zephyr.stats.intervals._BLOCK", 33 * RESAMPLES // 8)
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
    values = [1.0, 0.0, 0.5, 1.0] * 5
    for kind in KINDS:
        difference = paired_difference(values, values, kind=kind)
        assert difference == (0, 0, 0, 20)
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


def test_two_proportions_are_distinguished_where_mcnemars_exact_test_rejects() -> None:
    """The test asks how likely coins are to fall as far to one side, or further, and doubles it."""
    for wins in range(16):
        for losses in range(16):
            ours = [1] * wins + [0] * losses + [1, 0]
            theirs = [0] * wins + [1] * losses + [1, 0]
            difference = paired_difference(ours, theirs, kind="proportion")
            decided, most = wins + losses, max(wins, losses)
            tail = sum(math.comb(decided, k) for k in range(most, decided + 1)) / 2**decided
            assert (decide_verdict(difference, "higher") != "cannot tell") == (2 * tail < 0.05), (
                wins,
                losses,
            )
            assert difference.value == pytest.approx((wins - losses) / (decided + 2))
            assert difference.low <= difference.value <= difference.high


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
