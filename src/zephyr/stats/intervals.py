"""Confidence intervals (95 %) of scores, and of paired differences between two models.

Proportions have exact intervals (`proportions`), means and perplexities the studentized bootstrap
(`bootstrap`); items are the random sample. Of a score within [0, 1] the interval never goes beyond
that of a proportion with the same mean, which holds for any such score. `docs/intervals.md` has the
coverage of each, and says where there is less than 95 %.
"""

import math
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from zephyr.stats.bootstrap import Ratio, studentized_interval
from zephyr.stats.proportions import clopper_pearson_interval, paired_difference_interval

StatisticKind = Literal["proportion", "mean", "exp-mean"]
BetterDirection = Literal["higher", "lower"]
Verdict = Literal["better", "worse", "cannot tell"]

MIN_DIFFERING_PAIRS = 6
"""Minimum number of differing pairs for significance: five agree by chance in 2 x 2^-5 = 6 %."""
SMALL_SAMPLE = 50
"""Below so many items the interval of a mean without bounds may hold less than 95 % (skew)."""

_MAX_EXPONENT = 700.0
_Numbers = NDArray[np.float64]
_Interval = tuple[float, float]


class Estimate(NamedTuple):
    """A value with its 95 % confidence interval, from `n` items."""

    value: float
    low: float
    high: float
    n: int


def estimate(
    values: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    kind: StatisticKind,
    bounded: bool = False,
    seed: int = 0,
) -> Estimate:
    """The statistic of the values [n] of items, with its 95 % confidence interval.

    `proportion` and `mean` are the weighted mean of the values; `exp-mean` is the exponential of
    their sum over the sum of the weights (perplexity: a window's value is its summed negative
    log-probability, its weight the number of its predicted tokens). Values of a proportion are
    within [0, 1]; so are those of a mean that is `bounded`. One item, or equal ones without bounds,
    say nothing of the spread: then the interval is the value.
    """
    values, weights = _validate_arrays(values, weights)
    bounded = _is_bounded(kind, bounded, values)
    ratio = _ratio(values, weights, kind)
    value, n = ratio.value, len(values)
    limit = _share_interval(ratio) if bounded else None
    if limit is not None and _is_count(kind, weights, values):
        return Estimate(value, *limit, n)
    low, high = _within(
        studentized_interval([ratio], exponential=False, bounded=bounded, seed=seed), limit, value
    )
    if kind == "exp-mean":
        value, low, high = (math.exp(min(each, _MAX_EXPONENT)) for each in (value, low, high))
    return Estimate(value, low, high, n)


def paired_difference(
    values: ArrayLike,
    base: ArrayLike,
    weights: ArrayLike | None = None,
    base_weights: ArrayLike | None = None,
    *,
    kind: StatisticKind,
    bounded: bool = False,
    seed: int = 0,
) -> Estimate:
    """The paired difference of a statistic: that of `values` minus that of `base`.

    Both sides of a pair are resampled together, so that items that are hard for every model don't
    add variance. Where fewer than `MIN_DIFFERING_PAIRS` differ, the interval holds zero.
    """
    values, weights = _validate_arrays(values, weights)
    base, base_weights = _validate_arrays(base, base_weights)
    assert len(values) == len(base), "a paired difference needs the same items on both sides"
    bounded = _is_bounded(kind, bounded, values, base)
    ratio, base_ratio = _ratio(values, weights, kind), _ratio(base, base_weights, kind)
    exponential, n = kind == "exp-mean", len(values)
    value = ratio.value - base_ratio.value
    if exponential:
        value = math.exp(ratio.value) - math.exp(base_ratio.value)
    ratios, is_same_weight = [ratio, base_ratio], bool((weights == base_weights).all())
    if is_same_weight and not exponential:
        ratios = [Ratio(ratio.numerators - base_ratio.numerators, weights)]
    limit = None
    if bounded and is_same_weight:
        limit = _share_difference_interval(ratios[0])
    elif bounded:
        (low, high), (base_low, base_high) = _share_interval(ratio), _share_interval(base_ratio)
        limit = low - base_high, high - base_low
    if limit is not None and is_same_weight and _is_count(kind, weights, values, base):
        low, high = limit
    else:
        found = studentized_interval(ratios, exponential=exponential, bounded=bounded, seed=seed)
        low, high = _within(found, limit, value)
    if ((values != base) | (weights != base_weights)).sum() < MIN_DIFFERING_PAIRS:
        low, high = min(low, 0.0), max(high, 0.0)
    return Estimate(value, low, high, n)


def decide_verdict(difference: Estimate, better: BetterDirection | None, p: float = 0.0) -> Verdict:
    """The verdict on a difference: better, worse, or cannot tell, by interval and p-value.

    It can't be told for a metric with no better direction (None), where the interval holds zero, or
    where the p-value `p`, corrected if it is one of several, is above 5 %.
    """
    if better is None or p > 0.05 or difference.low <= 0 <= difference.high:
        return "cannot tell"
    return "better" if (difference.low > 0) == (better == "higher") else "worse"


def explain_disagreement(difference: Estimate, p: float, p_corrected: float | None) -> str | None:
    """Why interval and verdict seem to contradict each other, in three words; None if they don't.

    An interval is for one difference alone, a verdict for all primary ones of a table.
    """
    if difference.low <= 0 <= difference.high:
        return (
            "interval holds zero" if (p if p_corrected is None else p_corrected) <= 0.05 else None
        )
    if p > 0.05:
        return "test not significant"
    return "not after correction" if p_corrected is not None and p_corrected > 0.05 else None


def may_undercover(kind: StatisticKind, found: Estimate, *, bounded: bool) -> bool:
    """Whether an interval may hold less than 95 %: of few items without bounds, if they are skewed.

    No interval of a mean without bounds holds for every distribution (Bahadur and Savage 1956).
    """
    return kind != "proportion" and not bounded and found.n < SMALL_SAMPLE


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


def _is_bounded(kind: StatisticKind, bounded: bool, *sides: _Numbers) -> bool:
    is_bounded = kind == "proportion" or bounded
    assert not is_bounded or all(((side >= -1e-9) & (side <= 1 + 1e-9)).all() for side in sides), (
        "a bounded score is within [0, 1]"
    )
    return is_bounded


def _is_count(kind: StatisticKind, weights: _Numbers, *sides: _Numbers) -> bool:
    """Whether bounded values are counted (a tie is one half), as successes are."""
    is_binary = all(np.isin(side, (0.0, 1.0)).all() for side in sides)
    return bool((weights == 1).all()) and (kind == "proportion" or is_binary)


def _ratio(values: _Numbers, weights: _Numbers, kind: StatisticKind) -> Ratio:
    return Ratio(values if kind == "exp-mean" else values * weights, weights)


def _effective_size(weights: _Numbers) -> float:
    """How many items of equal weight vary as much as these (Kish 1965)."""
    return float(weights.sum() ** 2 / (weights * weights).sum())


def _share_interval(ratio: Ratio) -> _Interval:
    """The interval of a proportion with the same mean, for scores within [0, 1]."""
    n = _effective_size(ratio.denominators)
    return clopper_pearson_interval(min(max(ratio.value, 0.0), 1.0) * n, n)


def _share_difference_interval(ratio: Ratio) -> _Interval:
    """The interval of paired proportions that differ as much, for scores within [0, 1]."""
    n, total = _effective_size(ratio.denominators), ratio.denominators.sum()
    wins, losses = (float(np.maximum(sign * ratio.numerators, 0).sum() / total) for sign in (1, -1))
    return paired_difference_interval(min(wins, 1.0) * n, min(losses, 1.0) * n, n)


def _within(interval: _Interval | None, limit: _Interval | None, value: float) -> _Interval:
    """The part of an interval within a limit; where one is missing the other, else the value."""
    if interval is None or limit is None:
        return interval or limit or (value, value)
    return max(interval[0], limit[0]), min(interval[1], limit[1])
