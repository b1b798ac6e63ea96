"""Estimates with 95 % intervals, and paired differences between two models.

A proportion of plain successes gets the Wilson score interval (Wilson 1927), which stays inside
[0, 1] and is honest for few items; everything else gets the percentile bootstrap over items (Efron
1979). Items are what is drawn at random, so items are what is resampled. The difference of two
proportions on the same items is judged by the items on which the two disagree, exactly (McNemar
1947; the interval of Clopper and Pearson 1934): a bootstrap is too sure of a handful of them.
"""

import math
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Kind = Literal["proportion", "mean", "exp-mean"]
Better = Literal["higher", "lower"]
Verdict = Literal["better", "worse", "cannot tell"]

RESAMPLES = 1_000
Z = 1.959963984540054
"""The 97.5 % quantile of the normal distribution."""
FEWEST = 6
"""Differing pairs below which no outcome is evidence: five coins agree in 2 x 2^-5 = 6 %."""

_BLOCK = 1 << 20
_Numbers = NDArray[np.float64]


class Estimate(NamedTuple):
    """A value with its 95 % interval, from `n` items."""

    value: float
    low: float
    high: float
    n: int


def estimate(
    values: ArrayLike, weights: ArrayLike | None = None, *, kind: Kind, seed: int = 0
) -> Estimate:
    """The statistic of the values [n] of items, and its 95 % interval.

    `proportion` and `mean` are the weighted mean of the values; `exp-mean` is the exponential of
    their sum over the sum of the weights (perplexity: a window's value is its summed negative
    log-probability, its weight the number of its predicted tokens).
    """
    values, weights = _numbers(values, weights)
    value = _statistic(values.sum(), values @ weights, weights.sum(), kind)
    n = len(values)
    plain = kind == "proportion" and bool((weights == 1).all())
    if plain and bool(np.isin(values, (0.0, 1.0)).all()):
        return Estimate(float(value), *wilson(int(values.sum()), n), n)
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


def difference(
    values: ArrayLike,
    base: ArrayLike,
    weights: ArrayLike | None = None,
    base_weights: ArrayLike | None = None,
    *,
    kind: Kind,
    seed: int = 0,
) -> Estimate:
    """The statistic of `values` minus that of `base`, whose items are paired by position.

    Both sides of a pair are drawn together, so that what makes an item hard for every model does
    not blur the difference. Where fewer than `FEWEST` pairs differ, the interval holds zero.
    """
    values, weights = _numbers(values, weights)
    base, base_weights = _numbers(base, base_weights)
    assert len(values) == len(base), "a paired difference needs the same items on both sides"

    def gap(at: NDArray[np.int64]) -> _Numbers:
        ours, theirs = (
            _statistic(v[at].sum(axis=-1), (v[at] * w[at]).sum(axis=-1), w[at].sum(axis=-1), kind)
            for v, w in ((values, weights), (base, base_weights))
        )
        return ours - theirs

    n = len(values)
    plain = kind == "proportion" and bool((weights == 1).all() and (base_weights == 1).all())
    if plain and bool(np.isin([values, base], (0.0, 1.0)).all()):
        return _disagreement(int((values > base).sum()), int((values < base).sum()), n)
    value = float(gap(np.arange(n)))
    low, high = _percentiles(_resample(n, seed, gap))
    if ((values != base) | (weights != base_weights)).sum() < FEWEST:
        low, high = min(low, 0.0), max(high, 0.0)
    return Estimate(value, low, high, n)


def _disagreement(wins: int, losses: int, n: int) -> Estimate:
    """The difference of two proportions that disagree on `wins` + `losses` of `n` items.

    Given how many those are, the share of wins among them has an exact interval, and that holds one
    half just where McNemar's exact test does not reject equality at 5 %.
    """
    decided = wins + losses
    if decided == 0:
        return Estimate(0.0, 0.0, 0.0, n)
    low, high = _fewest_share(wins, decided), 1 - _fewest_share(losses, decided)
    scale = decided / n
    return Estimate((wins - losses) / n, scale * (2 * low - 1), scale * (2 * high - 1), n)


def _fewest_share(successes: int, n: int) -> float:
    """The share at which `successes` or more of `n` have a probability of 2.5 %; 0 for none."""
    if successes == 0:
        return 0.0
    low, high = 0.0, successes / n
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if _tail(successes, n, middle) > 0.025 else (middle, high)
    return low


def _tail(successes: int, n: int, share: float) -> float:
    """The probability of at least `successes` in `n` trials, for a share above 0 and below 1."""
    at = np.arange(successes, n + 1)
    ways = [math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in at]
    logs = np.array(ways) + at * math.log(share) + (n - at) * math.log1p(-share)
    return float(np.exp(logs).sum())


def verdict(difference: Estimate, better: Better | None, p: float = 0.0) -> Verdict:
    """What a difference says: its interval lies above zero, below it, or neither.

    Nothing can be told of a metric with no better side (None), nor where `p`, corrected for the
    number of comparisons, is above 5 %.
    """
    if better is None or p > 0.05 or difference.low <= 0 <= difference.high:
        return "cannot tell"
    return "better" if (difference.low > 0) == (better == "higher") else "worse"


def wilson(successes: int, n: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of a proportion."""
    assert 0 <= successes <= n > 0, "successes are counted among at least one item"
    share = successes / n
    spread = Z * np.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    middle = share + Z * Z / (2 * n)
    scale = 1 + Z * Z / n
    low = 0.0 if successes == 0 else float((middle - spread) / scale)
    high = 1.0 if successes == n else float((middle + spread) / scale)
    return low, high


def _numbers(values: ArrayLike, weights: ArrayLike | None) -> tuple[_Numbers, _Numbers]:
    numbers = np.asarray(values, dtype=np.float64)
    scales = np.ones_like(numbers) if weights is None else np.asarray(weights, dtype=np.float64)
    assert numbers.ndim == 1, "one value an item"
    assert len(numbers) > 0, "no items, no estimate"
    assert numbers.shape == scales.shape, "one weight an item"
    assert np.isfinite(numbers).all(), "what is not finite is refused before it gets here"
    assert np.isfinite(scales).all(), "what is not finite is refused before it gets here"
    assert (scales > 0).all(), "an item that weighs nothing is left out before it gets here"
    return numbers, scales


def _statistic(sums: _Numbers, weighted: _Numbers, weights: _Numbers, kind: Kind) -> _Numbers:
    """From sum(values), sum(values x weights) and sum(weights), each a number or an array."""
    out: _Numbers = np.exp(sums / weights) if kind == "exp-mean" else weighted / weights
    return out


def _resample(n: int, seed: int, of: Callable[[NDArray[np.int64]], _Numbers]) -> _Numbers:
    """`of` the indices [block, n] of samples drawn with replacement, block after block."""
    return np.concatenate([of(at) for at in _draws(n, np.random.default_rng(seed))])


def _draws(n: int, random: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    block = max(1, _BLOCK // n)
    for start in range(0, RESAMPLES, block):
        yield random.integers(0, n, size=(min(block, RESAMPLES - start), n))


def _percentiles(resampled: _Numbers) -> tuple[float, float]:
    low, high = np.quantile(resampled, (0.025, 0.975))
    return float(low), float(high)
