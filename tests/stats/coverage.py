"""Coverage of every interval, as shares of samples whose interval holds the truth.

python -m tests.stats.coverage: writes results/coverage.json and the tables of docs/intervals.md.

Proportions are enumerated: every outcome of n items has its probability, so nothing is random. The
means are simulated. Wilson's and Tango's intervals stand beside ours for comparison.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, xlogy

from zephyr.stats.intervals import estimate, paired_difference
from zephyr.stats.proportions import clopper_pearson_interval, paired_difference_interval

Z = 1.959963984540054
ROOT = Path(__file__).parents[2]
SHARES = (0.0, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.14, 0.2, 0.3, 0.4, 0.5, 0.7, 0.95)
Numbers = NDArray[np.float64]
Interval = tuple[float, float]


# -- proportions: enumerated -----------------------------------------------------------------------


def wilson_interval(successes: float, n: float) -> Interval:
    """Wilson's score interval (1927)."""
    share, scale = successes / n, 1 + Z * Z / n
    half = Z * np.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    low, high = share + Z * Z / (2 * n) - half, share + Z * Z / (2 * n) + half
    return (0.0 if not successes else low / scale), (1.0 if successes == n else high / scale)


def tango_interval(wins: Numbers, losses: Numbers, n: int) -> tuple[Numbers, Numbers]:
    """Tango's score interval (1998) of many outcomes, by bisection."""

    def statistic(difference: Numbers) -> Numbers:
        linear = (2 * n - wins + losses) * difference - wins - losses
        root = np.sqrt(linear**2 + 8 * n * losses * difference * (1 - difference))
        opposite = (root - linear) / (4 * n)  # maximum likelihood under the difference
        variance = n * (2 * opposite + difference * (1 - difference))
        with np.errstate(divide="ignore", invalid="ignore"):
            found = (wins - losses - n * difference) / np.sqrt(np.maximum(variance, 0))
        return np.where(np.isnan(found), 0, found)

    ends = []
    for sign in (-1.0, 1.0):
        inside, outside = (wins - losses) / n, np.full(len(wins), sign)
        for _ in range(50):
            middle = (inside + outside) / 2
            is_inside = np.abs(statistic(middle)) <= Z
            inside, outside = (
                np.where(is_inside, middle, inside),
                np.where(is_inside, outside, middle),
            )
        ends.append(inside)
    return ends[0], ends[1]


def proportion_coverage(
    n: int, interval: Callable[[float, float], Interval] = clopper_pearson_interval
) -> Iterator[tuple[float, float]]:
    """Yields shares, those just beside an interval's end among them, and how many are covered."""
    ends = np.array([interval(k, n) for k in range(n + 1)])
    beside = np.concatenate([ends.ravel() + step for step in (-1e-9, 1e-9)])
    for share in np.unique([*np.linspace(0.001, 0.999, 500), *beside[(beside > 0) & (beside < 1)]]):
        is_inside = (ends[:, 0] <= share) & (share <= ends[:, 1])
        yield float(share), float(_probabilities(np.arange(n + 1), n, share)[is_inside].sum())


def _outcomes(n: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    wins, losses = np.divmod(np.arange((n + 1) ** 2), n + 1)
    return wins[wins + losses <= n], losses[wins + losses <= n]


def _probabilities(first: Any, n: int, share: float, second: Any = 0, other: float = 0) -> Numbers:
    rest = n - first - second
    counts = gammaln(n + 1) - gammaln(first + 1) - gammaln(second + 1) - gammaln(rest + 1)
    logs = xlogy(first, share) + xlogy(second, other) + xlogy(rest, max(1 - share - other, 0))
    return np.asarray(np.exp(counts + logs))


Rates = tuple[float, float]


def share_pairs() -> list[Rates]:
    """Shares won and lost, at least as many won."""
    return [(w, lo) for w in SHARES for lo in SHARES if lo <= w and w + lo <= 1]


def paired_coverage(
    n: int, rates: list[Rates], *, tango: bool = False
) -> Iterator[tuple[Rates, float]]:
    """Yields shares won and lost, and how often the interval of their difference holds it."""
    wins, losses = _outcomes(n)
    if tango:
        low, high = tango_interval(wins.astype(float), losses.astype(float), n)
    else:
        pairs = zip(wins.tolist(), losses.tolist(), strict=True)
        low, high = np.array([paired_difference_interval(w, lo, n) for w, lo in pairs]).T
    for won, lost in rates:
        is_inside = (low - 1e-12 <= won - lost) & (won - lost <= high + 1e-12)
        probabilities = _probabilities(wins, n, won, losses, lost)
        yield (won, lost), float(probabilities[is_inside].sum())


def win_rate_coverage(n: int, rates: list[Rates]) -> Iterator[tuple[Rates, float]]:
    """Yields shares won and tied, and how often the interval of the win rate holds it."""
    wins, ties = _outcomes(n)
    ends = np.array([clopper_pearson_interval(k / 2, n) for k in range(2 * n + 1)])
    low, high = ends[2 * wins + ties].T
    for won, tied in rates:
        rate = won + tied / 2
        is_inside = (low <= rate + 1e-12) & (rate <= high + 1e-12)
        yield (won, tied), float(_probabilities(wins, n, won, ties, tied)[is_inside].sum())


# -- means: simulated ------------------------------------------------------------------------------

Draw = Callable[[np.random.Generator, int], Interval]
"""Draws n items, and gives the interval of their statistic."""


def _mean(draw: Callable[..., Numbers], *, bounded: bool = False) -> Draw:
    return lambda g, n: estimate(draw(g, n), kind="mean", bounded=bounded)[1:3]


def _scores(generator: np.random.Generator, n: int) -> Numbers:
    """Scores within [0, 1] of which nine of ten are zero."""
    return (generator.random(n) < 0.1) * generator.random(n)


def _difference_of_scores(generator: np.random.Generator, n: int) -> Interval:
    """ROUGE of two models: the same difficulty of an item, and noise of their own."""
    items = generator.beta(2, 3, n)
    ours, theirs = (np.clip(items + generator.normal(0, 0.1, n), 0, 1) for _ in range(2))
    return paired_difference(ours, theirs, kind="mean", bounded=True)[1:3]


def _difference_of_few(generator: np.random.Generator, n: int) -> Interval:
    """Scores of which one in ten differs, always to the better: by 0.25 in the mean."""
    base = np.full(n, 0.4)
    ours = base + (generator.random(n) < 0.1) * generator.uniform(0, 0.5, n)
    return paired_difference(ours, base, kind="mean", bounded=True)[1:3]


def _windows(generator: np.random.Generator, n: int) -> tuple[Numbers, Numbers]:
    """Summed negative log-probabilities (2.5 a token) and tokens of pages of unequal length."""
    tokens = generator.integers(20, 400, n).astype(float)
    return tokens * generator.gamma(8, 2.5 / 8, n), tokens


def _perplexity(generator: np.random.Generator, n: int) -> Interval:
    return estimate(*_windows(generator, n), kind="exp-mean")[1:3]


def _difference_of_perplexities(generator: np.random.Generator, n: int) -> Interval:
    sums, tokens = _windows(generator, n)
    ours = sums + tokens * generator.normal(0, 0.05, n)
    return paired_difference(ours, sums, tokens, tokens, kind="exp-mean")[1:3]


MEANS: dict[str, tuple[Draw, float]] = {
    "mean, normal": (_mean(lambda g, n: g.normal(size=n)), 0.0),
    "mean, exponential (skew 2)": (_mean(lambda g, n: g.exponential(size=n)), 1.0),
    "mean, log-normal 0.5 (skew 1.8)": (
        _mean(lambda g, n: g.lognormal(0, 0.5, n)),
        float(np.exp(0.125)),
    ),
    "mean, log-normal 1 (skew 6.2)": (_mean(lambda g, n: g.lognormal(size=n)), float(np.exp(0.5))),
    "score, beta(0.5, 2)": (_mean(lambda g, n: g.beta(0.5, 2, n), bounded=True), 0.2),
    "score, nine of ten zero": (_mean(_scores, bounded=True), 0.05),
    "difference of scores": (_difference_of_scores, 0.0),
    "difference of scores, one in ten differs": (_difference_of_few, 0.025),
    "perplexity of unequal pages": (_perplexity, float(np.exp(2.5))),
    "difference of perplexities": (_difference_of_perplexities, 0.0),
}
"""What is drawn, and the true value of its statistic."""


def mean_coverage(name: str, n: int, samples: int, seed: int = 0) -> float:
    """How many of `samples` intervals hold the truth."""
    draw, truth = MEANS[name]
    generator = np.random.default_rng([seed, n, *name.encode()])
    found = (draw(generator, n) for _ in range(samples))
    return sum(low <= truth <= high for low, high in found) / samples


# -- the whole grid --------------------------------------------------------------------------------

SIZES = (5, 10, 20, 50, 100, 200, 500)
MEAN_SIZES = (5, 10, 20, 50, 100, 300, 1000)


def measure() -> dict[str, Any]:
    """The coverage over the grid: least and mean of proportions, and that of each mean."""
    pairs = share_pairs()
    enumerated: dict[str, Callable[[int], Iterator[tuple[Any, float]]]] = {
        "proportion": proportion_coverage,
        "proportion, Wilson": lambda n: proportion_coverage(n, wilson_interval),
        "win rate with ties": lambda n: win_rate_coverage(n, pairs),
        "paired difference": lambda n: paired_coverage(n, pairs),
        "paired difference, Tango": lambda n: paired_coverage(n, pairs, tango=True),
    }
    proportions = []
    for name, cover in enumerated.items():
        for n in SIZES:
            found = dict(cover(n))
            worst = min(found, key=lambda at: found[at])
            row = {"interval": name, "n": n, "least": found[worst], "at": worst}
            proportions.append(row | {"mean": float(np.mean(list(found.values())))})
    means = []
    for name in MEANS:
        for n in MEAN_SIZES:
            samples = 1_000 if n <= 300 else 600
            covered = mean_coverage(name, n, samples)
            means.append({"what": name, "n": n, "samples": samples, "covered": covered})
    return {"claimed": 0.95, "proportions": proportions, "means": means}


def tables(measured: dict[str, Any]) -> str:
    """The coverage in per cent as two Markdown tables."""

    def table(rows: list[dict[str, Any]], name: str, value: str) -> str:
        sizes = list(dict.fromkeys(row["n"] for row in rows))
        lines = [f"| {name} | {' | '.join(f'n = {n:,}' for n in sizes)} |"]
        lines.append(f"| --- |{' ---: |' * len(sizes)}")
        for key in dict.fromkeys(row[name] for row in rows):
            cells = [f"{100 * row[value]:.1f}" for row in rows if row[name] == key]
            lines.append(f"| {key} | {' | '.join(cells)} |")
        return "\n".join(lines)

    return (
        f"{table(measured['proportions'], 'interval', 'least')}\n\n"
        f"{table(measured['means'], 'what', 'covered')}\n"
    )


def main() -> None:
    """Measures, and writes the results and the tables of the page."""
    measured = measure()
    text = json.dumps(measured, indent=1) + "\n"
    (ROOT / "results" / "coverage.json").write_text(text, encoding="utf-8")
    page = ROOT / "docs" / "intervals.md"
    before, start, rest = page.read_text(encoding="utf-8").partition("<!-- coverage -->\n")
    _, end, after = rest.partition("<!-- end of coverage -->")
    page.write_text(f"{before}{start}\n{tables(measured)}\n{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
