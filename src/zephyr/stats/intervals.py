"""Confidence intervals (95 %) of scores, and of paired differences between two models.

A proportion of plain successes gets the Wilson score interval (Wilson 1927), which stays inside [0,
1] and is accurate for few items; everything else gets the percentile bootstrap over items (Efron
1979). Items are the random sample, so items are resampled. The difference of two proportions on the
same items is tested by the discordant pairs, exactly (McNemar 1947; the interval of Clopper and
Pearson 1934): a bootstrap of few of them is overconfident.
"""

import math
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

StatisticKind = Literal["proportion", "mean", "exp-mean"]
BetterDirection = Literal["higher", "lower"]
Verdict = Literal["better", "worse", "cannot tell"]

RESAMPLES = 1_000
Z = 1.959963984540054
"""The 97.5 % quantile of the normal distribution."""
MIN_DIFFERING_PAIRS = 6
"""Minimum number of differing pairs for significance: five agree by chance in 2 x 2^-5 = 6 %."""

_BLOCK = 1 << 20
_Numbers = NDArray[np.float64]


class Estimate(NamedTuple):
    """A value with its 95 % confidence interval, from `n` items."""

    value: float
    low: float
    high: float
    n: int


def estimate(
    values: ArrayLike, weights: ArrayLike | None = None, *, kind: StatisticKind, seed: int = 0
) -> Estimate:
    """The statistic of the values [n] of items, with its 95 % confidence interval.

    `proportion` and `mean` are the weighted mean of the values; `exp-mean` is the exponential of
    their sum over the sum of the weights (perplexity: a window's value is its summed negative
    log-probability, its weight the number of its predicted tokens).
    """
    values, weights = _validate_arrays(values, weights)
    value = _statistic(values.sum(), values @ weights, weights.sum(), kind)
    n = len(values)
    is_unweighted_proportion = kind == "proportion" and bool((weights == 1).all())
    if is_unweighted_proportion and bool(np.isin(values, (0.0, 1.0)).all()):
        return Estimate(float(value), *wilson_interval(int(values.sum()), n), n)
    resampled = _resample(
        n,
        seed,
        lambda at: _statistic(
            values[at].sum(axis=1),
            (values[at] * weights[at]).sum(axis=1),
            weights[at].sum(axis=1),
            kind,
        ),
    )
    return Estimate(float(value), *_percentiles(resampled), n)


def paired_difference(
    values: ArrayLike,
    base: ArrayLike,
    weights: ArrayLike | None = None,
    base_weights: ArrayLike | None = None,
    *,
    kind: StatisticKind,
    seed: int = 0,
) -> Estimate:
    """The paired difference of a statistic: that of `values` minus that of `base`.

    Both sides of a pair are resampled together (paired bootstrap), so that items that are hard for
    every model don't add variance. Where fewer than `MIN_DIFFERING_PAIRS` differ, the interval
    holds zero.
    """
    values, weights = _validate_arrays(values, weights)
    base, base_weights = _validate_arrays(base, base_weights)
    assert len(values) == len(base), "a paired difference needs the same items on both sides"

    def difference_at(indices: NDArray[np.int64]) -> _Numbers:
        statistic, base_statistic = (
            _statistic(
                v[indices].sum(axis=-1),
                (v[indices] * w[indices]).sum(axis=-1),
                w[indices].sum(axis=-1),
                kind,
            )
            for v, w in ((values, weights), (base, base_weights))
        )
        return statistic - base_statistic

    n = len(values)
    is_unweighted_proportion = kind == "proportion" and bool(
        (weights == 1).all() and (base_weights == 1).all()
    )
    if is_unweighted_proportion and bool(np.isin([values, base], (0.0, 1.0)).all()):
        return _discordant_difference(int((values > base).sum()), int((values < base).sum()), n)
    value = float(difference_at(np.arange(n)))
    low, high = _percentiles(_resample(n, seed, difference_at))
    if ((values != base) | (weights != base_weights)).sum() < MIN_DIFFERING_PAIRS:
        low, high = min(low, 0.0), max(high, 0.0)
    return Estimate(value, low, high, n)


def _discordant_difference(wins: int, losses: int, n: int) -> Estimate:
    """The difference of two proportions, from the discordant pairs among `n` items.

    Given how many those are, the share of wins among them has an exact interval, and that holds one
    half just where McNemar's exact test does not reject equality at 5 %.
    """
    discordant = wins + losses
    if discordant == 0:
        return Estimate(0.0, 0.0, 0.0, n)
    low, high = (
        _clopper_pearson_lower(wins, discordant),
        1 - _clopper_pearson_lower(losses, discordant),
    )
    scale = discordant / n
    return Estimate((wins - losses) / n, scale * (2 * low - 1), scale * (2 * high - 1), n)


def _clopper_pearson_lower(successes: int, n: int) -> float:
    """Clopper-Pearson lower bound: the share at which the binomial tail is 2.5 %; 0 for none."""
    if successes == 0:
        return 0.0
    low, high = 0.0, successes / n
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (
            (low, middle) if _binomial_tail(successes, n, middle) > 0.025 else (middle, high)
        )
    return low


def _binomial_tail(successes: int, n: int, probability: float) -> float:
    """Binomial tail: the probability of at least `successes` in `n` trials."""
    counts = np.arange(successes, n + 1)
    log_coefficients = [
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in counts
    ]
    log_probabilities = (
        np.array(log_coefficients)
        + counts * math.log(probability)
        + (n - counts) * math.log1p(-probability)
    )
    return float(np.exp(log_probabilities).sum())


def decide_verdict(difference: Estimate, better: BetterDirection | None, p: float = 0.0) -> Verdict:
    """The verdict on a difference: better, worse, or cannot tell, by interval and p-value.

    It can't be told for a metric with no better direction (None), where the interval holds zero, or
    where the p-value `p`, corrected for multiple comparisons, is above 5 %.
    """
    if better is None or p > 0.05 or difference.low <= 0 <= difference.high:
        return "cannot tell"
    return "better" if (difference.low > 0) == (better == "higher") else "worse"


def wilson_interval(successes: int, n: int) -> tuple[float, float]:
    """The 95 % Wilson score confidence interval of a proportion."""
    assert 0 <= successes <= n > 0, "successes are counted among at least one item"
    proportion = successes / n
    half_width = Z * np.sqrt(proportion * (1 - proportion) / n + Z * Z / (4 * n * n))
    center = proportion + Z * Z / (2 * n)
    scale = 1 + Z * Z / n
    low = 0.0 if successes == 0 else float((center - half_width) / scale)
    high = 1.0 if successes == n else float((center + half_width) / scale)
    return low, high


def _validate_arrays(values: ArrayLike, weights: ArrayLike | None) -> tuple[_Numbers, _Numbers]:
    """Values [n] and weights [n] as float64, checked to be finite and non-empty."""
    numbers = np.asarray(values, dtype=np.float64)
    weight_array = (
        np.ones_like(numbers) if weights is None else np.asarray(weights, dtype=np.float64)
    )
    assert numbers.ndim == 1, "one value an item"
    assert len(numbers) > 0, "no items, no estimate"
    assert numbers.shape == weight_array.shape, "one weight an item"
    assert np.isfinite(numbers).all(), "what is not finite is refused before it gets here"
    assert np.isfinite(weight_array).all(), "what is not finite is refused before it gets here"
    assert (weight_array > 0).all(), "an item that weighs nothing is left out before it gets here"
    return numbers, weight_array


def _statistic(
    sums: _Numbers, weighted: _Numbers, weights: _Numbers, kind: StatisticKind
) -> _Numbers:
    """The statistic from sum(values), sum(values x weights) and sum(weights), numbers or arrays."""
    out: _Numbers = np.exp(sums / weights) if kind == "exp-mean" else weighted / weights
    return out


def _resample(n: int, seed: int, statistic: Callable[[NDArray[np.int64]], _Numbers]) -> _Numbers:
    """Bootstrap distribution: `statistic` of index samples [block, n], block after block."""
    return np.concatenate(
        [statistic(at) for at in _bootstrap_indices(n, np.random.default_rng(seed))]
    )


def _bootstrap_indices(n: int, generator: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Yields blocks [block, n] of item indices drawn with replacement."""
    block = max(1, _BLOCK // n)
    for start in range(0, RESAMPLES, block):
        yield generator.integers(0, n, size=(min(block, RESAMPLES - start), n))


def _percentiles(resampled: _Numbers) -> tuple[float, float]:
    low, high = np.quantile(resampled, (0.025, 0.975))
    return float(low), float(high)
