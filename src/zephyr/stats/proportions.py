"""Intervals (95 %) of proportions: Clopper-Pearson, and MOVER for a paired difference of two.

Both hold at least 95 % whatever the proportions are (`docs/intervals.md`). Wilson's score interval
falls to 84 % near 0 and 1, Tango's (1998) to 93 % where all that differ fall on one side.
Counts may be fractional: a tie is half a success, and a score within [0, 1] its part of one. Such a
score varies less than a success with the same mean, so the interval is then wider than it need be.
"""

import math


def clopper_pearson_interval(successes: float, n: float) -> tuple[float, float]:
    """The exact 95 % confidence interval of a proportion (Clopper and Pearson 1934)."""
    from scipy.special import betaincinv

    assert 0 <= successes <= n > 0, "successes are counted among at least one item"
    low = betaincinv(successes, n - successes + 1, 0.025) if successes else 0.0
    high = betaincinv(successes + 1, n - successes, 0.975) if successes < n else 1.0
    return float(low), float(high)


def paired_difference_interval(wins: float, losses: float, n: float) -> tuple[float, float]:
    """The 95 % confidence interval of a difference of two proportions on the same `n` items.

    The difference is that of two shares of the items: where only the first side succeeds (`wins`)
    and where only the second does (`losses`). Each has its Clopper-Pearson interval; MOVER (Zou and
    Donner 2008) adds their squared distances to it, with the correlation of two shares of one
    multinomial, estimated with half an item more in either.
    """
    share, opposite = wins / n, losses / n
    low, high = clopper_pearson_interval(wins, n)
    opposite_low, opposite_high = clopper_pearson_interval(losses, n)
    odds = [(count + 0.5) / (n + 0.5 - count) for count in (wins, losses)]
    correlation = -min(1.0, math.sqrt(odds[0] * odds[1]))
    return (
        share - opposite - _distance(share - low, opposite_high - opposite, correlation),
        share - opposite + _distance(high - share, opposite - opposite_low, correlation),
    )


def _distance(first: float, second: float, correlation: float) -> float:
    return math.sqrt(first * first + second * second - 2 * correlation * first * second)
