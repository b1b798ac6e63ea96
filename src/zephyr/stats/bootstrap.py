"""Studentized bootstrap: 95 % intervals of ratios of sums (means, perplexity) and differences.

Resampled is not the statistic but its distance to the sample's in standard errors, each of its own
resample (bootstrap-t: Efron 1982; Hall 1988). It follows the skew of few items, where percentiles
of resampled means are far too narrow: of five exponential numbers they hold 79 % instead of 95.
Each end is the wider of that and of Student's t, which is better where items are symmetric.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 999
"""So that the 2.5 % quantile of the resampled values is one of them, the 25th."""

_BLOCK = 1 << 20
_Numbers = NDArray[np.float64]


class Ratio(NamedTuple):
    """A ratio of sums over items: sum(numerators [n]) / sum(denominators [n])."""

    numerators: _Numbers
    denominators: _Numbers

    @property
    def value(self) -> float:
        return float(self.numerators.sum() / self.denominators.sum())


def studentized_interval(
    ratios: Sequence[Ratio], *, exponential: bool, bounded: bool, seed: int
) -> tuple[float, float] | None:
    """The interval of a ratio, or of the first minus the second, of the same items [n].

    With `exponential`, that of the difference of their exponentials. None where all items are
    equal, or are one. Resamples of equal items have no standard error: where values are `bounded`,
    they count as infinitely far, and so may an end be; else as far as the farthest of the others.
    """
    from scipy.special import stdtrit

    centered = [r.numerators - r.value * r.denominators for r in ratios]
    columns = np.stack(
        [c for e, r in zip(centered, ratios, strict=True) for c in (e, r.denominators)], axis=1
    )  # [n, 2 x ratios]
    n = len(columns)
    is_constant = all(
        np.abs(e).max() <= 1e-12 * np.abs(r.numerators).max()
        for e, r in zip(centered, ratios, strict=True)
    )
    if n < 2 or is_constant:
        return None
    values = np.array([r.value for r in ratios])
    value, error = _statistic_and_error(columns, np.ones((1, n)), values, exponential)
    if error[0] == 0:
        return None
    distances = np.concatenate(
        [
            _distances(*_statistic_and_error(columns, counts, values, exponential), value[0])
            for counts in _resample_counts(n, np.random.default_rng(seed))
        ]
    )
    if not bounded:
        farthest = np.abs(distances[np.isfinite(distances)]).max(initial=0.0)
        distances = np.clip(distances, -farthest, farthest)
    distances.sort()
    tail, t = round(0.025 * (RESAMPLES + 1)), float(stdtrit(n - 1, 0.975))
    upper, lower = max(float(distances[-tail]), t), min(float(distances[tail - 1]), -t)
    return float(value[0] - upper * error[0]), float(value[0] - lower * error[0])


def _statistic_and_error(
    columns: _Numbers, counts: _Numbers, values: _Numbers, exponential: bool
) -> tuple[_Numbers, _Numbers]:
    """The statistic of each row of counts [B, n], and its standard error by linearization."""
    n, width = columns.shape
    sums = counts @ columns  # [B, width]
    products = counts @ (columns[:, :, None] * columns[:, None, :]).reshape(n, width * width)
    shifts = sums[:, ::2] / sums[:, 1::2]  # of each ratio, against the sample's
    found = values + shifts
    signs = np.array([1.0, -1.0])[: len(values)]
    slopes = signs * (np.exp(found) if exponential else 1.0) / (sums[:, 1::2] / n)
    influence = np.stack([slopes, -slopes * shifts], axis=2).reshape(-1, width)
    matrices = products.reshape(-1, width, width)
    squares = np.einsum("bi,bij,bj->b", influence, matrices, influence)
    terms = np.einsum("bi,bii->b", influence**2, matrices)  # they cancel but for rounding
    squares = np.where(squares > 1e-13 * terms, squares, 0.0)
    statistic: _Numbers = (signs * (np.exp(found) if exponential else found)).sum(axis=1)
    error: _Numbers = np.sqrt(squares / (n * (n - 1)))
    return statistic, error


def _distances(statistics: _Numbers, errors: _Numbers, value: float) -> _Numbers:
    """Distances to the sample's value in standard errors; infinite where there is no error."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found: _Numbers = np.nan_to_num(
            (statistics - value) / errors, posinf=np.inf, neginf=-np.inf
        )
    return found


def _resample_counts(n: int, generator: np.random.Generator) -> Iterator[_Numbers]:
    """Yields blocks [block, n] of how often each item is in a resample (with replacement)."""
    block = max(1, _BLOCK // n)
    for start in range(0, RESAMPLES, block):
        rows = min(block, RESAMPLES - start)
        indices = generator.integers(0, n, size=(rows, n)) + np.arange(rows)[:, None] * n
        counts = np.bincount(indices.ravel(), minlength=rows * n)
        yield counts.reshape(rows, n).astype(np.float64)
