"""Significance tests: do two models differ on the same items, corrected for multiple tests?

Binary scores (accuracy) are tested by McNemar's exact test (1947), all else by a paired permutation
test: under the null hypothesis each item's difference has either sign with equal probability
(Fisher 1935; Pitman 1937). A table makes many comparisons, so their p-values are corrected by
Holm's step-down method (1979): the probability of any false positive stays at 5 %.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from zephyr.stats.intervals import MIN_DIFFERING_PAIRS, StatisticKind

ALPHA = 0.05
"""Significance level."""
POWER = 0.8
"""Statistical power."""
PERMUTATIONS = 20_000
"""Random signs of a permutation test: no p-value is below 1 in 20,001."""

_BLOCK = 1 << 22


class PairedTestResult(NamedTuple):
    """Result of a paired test: the p-value, and mean and standard deviation of differences."""

    p: float
    mean: float
    deviation: float


def paired_test(
    values: ArrayLike,
    base: ArrayLike,
    weights: ArrayLike | None = None,
    base_weights: ArrayLike | None = None,
    *,
    kind: StatisticKind,
    seed: int = 0,
) -> PairedTestResult:
    """Paired significance test of two models' items [n], paired by position.

    For `exp-mean` (perplexity) the summed negative log-probabilities are compared, else the
    weighted values. With fewer than `MIN_DIFFERING_PAIRS` of them, p is 1.
    """
    terms, base_terms = (
        _weighted_terms(values, weights, kind),
        _weighted_terms(base, base_weights, kind),
    )
    assert terms.shape == base_terms.shape, "a paired difference needs the same items on both sides"
    differences = terms - base_terms
    mean, deviation = float(differences.mean()), float(differences.std())
    differing = int((differences != 0).sum())
    if differing < MIN_DIFFERING_PAIRS:
        return PairedTestResult(1.0, mean, deviation)
    is_binary = kind == "proportion" and bool(np.isin([terms, base_terms], (0.0, 1.0)).all())
    p = (
        mcnemar_p_value(int((differences > 0).sum()), int((differences < 0).sum()))
        if is_binary
        else _permutation_p_value(differences, seed)
    )
    return PairedTestResult(p, mean, deviation)


def mcnemar_p_value(wins: int, losses: int) -> float:
    """McNemar's exact two-sided p-value, from the counts of discordant pairs."""
    discordant, fewer = wins + losses, min(wins, losses)
    coefficients = [math.comb(discordant, k) for k in range(fewer + 1)]
    return min(1.0, float(2 * sum(coefficients) / 2**discordant))


def binomial_tail(successes: int, trials: int, probability: float) -> float:
    """The probability of at least `successes` in `trials` of a binomial distribution."""
    return math.fsum(
        math.comb(trials, k) * probability**k * (1 - probability) ** (trials - k)
        for k in range(successes, trials + 1)
    )


def holm_correction(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction of p-values, in the order in which they came."""
    order = sorted(range(len(p_values)), key=lambda at: p_values[at])
    corrected = [0.0] * len(p_values)
    highest = 0.0
    for rank, at in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[at]))
        corrected[at] = highest
    return corrected


def required_sample_size(result: PairedTestResult, comparisons: int = 1) -> int | None:
    """The sample size (items) at which such a difference is detected with 80 % power.

    By the normal approximation, for the mean and variance given: (z(1 - 0.025 / m) +
    z(0.8))^2 x variance / mean^2, where m is `comparisons`. None where the mean is zero, or the
    variance, which so few items can't estimate.
    """
    if result.mean == 0 or result.deviation == 0:
        return None
    quantile = NormalDist().inv_cdf
    quantile_sum = quantile(1 - ALPHA / 2 / comparisons) + quantile(POWER)
    return math.ceil((quantile_sum * result.deviation / result.mean) ** 2)


def _weighted_terms(
    values: ArrayLike, weights: ArrayLike | None, kind: StatisticKind
) -> NDArray[np.float64]:
    numbers = np.asarray(values, dtype=np.float64)
    if kind == "exp-mean" or weights is None:
        return numbers
    return numbers * np.asarray(weights, dtype=np.float64)


def _permutation_p_value(differences: NDArray[np.float64], seed: int) -> float:
    """Permutation p-value: the share of random sign flips whose sum is as far from zero."""
    generator = np.random.default_rng(seed)
    threshold = abs(differences.sum()) * (1 - 1e-12)
    block = max(1, _BLOCK // len(differences))
    extreme_count = 0
    for start in range(0, PERMUTATIONS, block):
        rows = min(block, PERMUTATIONS - start)
        signs = generator.integers(0, 2, (rows, len(differences)), dtype=np.int8) * 2 - 1
        extreme_count += int((np.abs(signs @ differences) >= threshold).sum())
    return (1 + extreme_count) / (1 + PERMUTATIONS)
