"""Whether two models differ on the items that both were asked, among many such questions.

Right and wrong answers are judged by McNemar's exact test (1947), all else by a paired permutation
test: under equality each item's difference has either sign alike (Fisher 1935; Pitman 1937). A
table asks many questions at once, so their p-values are corrected by Holm's step-down rule (1979):
the chance that any of them is called a difference where there is none stays at 5 %.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from zephyr.stats.intervals import FEWEST, Kind

LEVEL = 0.05
POWER = 0.8
FLIPS = 20_000
"""Random signs of a permutation test: no p-value is below 1 in 20,001."""

_BLOCK = 1 << 22


class Evidence(NamedTuple):
    """The p-value of a paired difference; its mean over items, and its standard deviation."""

    p: float
    mean: float
    deviation: float


def evidence(
    values: ArrayLike,
    base: ArrayLike,
    weights: ArrayLike | None = None,
    base_weights: ArrayLike | None = None,
    *,
    kind: Kind,
    seed: int = 0,
) -> Evidence:
    """What the items [n] of two models say of their difference, paired by position.

    Of `exp-mean` (perplexity) it is the summed negative log-probabilities that are compared, of all
    else the values by their weights. Where fewer than `FEWEST` pairs differ, the p-value is 1.
    """
    ours, theirs = _terms(values, weights, kind), _terms(base, base_weights, kind)
    assert ours.shape == theirs.shape, "a paired difference needs the same items on both sides"
    gaps = ours - theirs
    mean, deviation = float(gaps.mean()), float(gaps.std())
    differing = int((gaps != 0).sum())
    if differing < FEWEST:
        return Evidence(1.0, mean, deviation)
    right = kind == "proportion" and bool(np.isin([ours, theirs], (0.0, 1.0)).all())
    p = mcnemar(int((gaps > 0).sum()), int((gaps < 0).sum())) if right else _flipped(gaps, seed)
    return Evidence(p, mean, deviation)


def mcnemar(wins: int, losses: int) -> float:
    """The two-sided p-value of so many pairs that differ one way and the other."""
    decided, fewer = wins + losses, min(wins, losses)
    ways = [math.comb(decided, k) for k in range(fewer + 1)]
    return min(1.0, float(2 * sum(ways) / 2**decided))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number, in the order in which they came."""
    order = sorted(range(len(p_values)), key=lambda at: p_values[at])
    corrected = [0.0] * len(p_values)
    highest = 0.0
    for rank, at in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[at]))
        corrected[at] = highest
    return corrected


def enough(found: Evidence, comparisons: int = 1) -> int | None:
    """The items at which such a difference would be told with 80 % power among so many comparisons.

    By the normal approximation, for a mean and a spread as they were found: (z(1 - 0.025 / m) +
    z(0.8))^2 x variance / mean^2. None where no difference was found.
    """
    if found.mean == 0:
        return None
    quantile = NormalDist().inv_cdf
    reach = quantile(1 - LEVEL / 2 / comparisons) + quantile(POWER)
    return math.ceil((reach * found.deviation / found.mean) ** 2)


def _terms(values: ArrayLike, weights: ArrayLike | None, kind: Kind) -> NDArray[np.float64]:
    numbers = np.asarray(values, dtype=np.float64)
    if kind == "exp-mean" or weights is None:
        return numbers
    return numbers * np.asarray(weights, dtype=np.float64)


def _flipped(gaps: NDArray[np.float64], seed: int) -> float:
    """The share of random signs, the true ones counted, that leave the sum as far from zero."""
    random = np.random.default_rng(seed)
    reached = abs(gaps.sum()) * (1 - 1e-12)
    block = max(1, _BLOCK // len(gaps))
    beyond = 0
    for start in range(0, FLIPS, block):
        rows = min(block, FLIPS - start)
        signs = random.integers(0, 2, (rows, len(gaps)), dtype=np.int8) * 2 - 1
        beyond += int((np.abs(signs @ gaps) >= reached).sum())
    return (1 + beyond) / (1 + FLIPS)
