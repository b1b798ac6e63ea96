"""Figures and Markdown tables of the benchmark page: spreads over rounds, ratios, percentiles."""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple


class Spread(NamedTuple):
    """The median of some rounds, the least and the most."""

    median: float
    least: float
    most: float


def spread(values: Iterable[float]) -> Spread:
    found = list(values)
    return Spread(statistics.median(found), min(found), max(found))


def ratios(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Spread | None:
    """Ours divided by theirs in each round that has both."""
    both = sorted(ours.keys() & theirs.keys())
    return spread(ours[r] / theirs[r] for r in both) if both else None


def percentile(values: Iterable[float], share: float) -> float:
    """The least of the values that is not exceeded by a share of them."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


class Line:
    """A line of the tables: an entry of a benchmark, and its valid measurements by round."""

    def __init__(self, entry: dict[str, Any], measurements: Iterable[dict[str, Any]]) -> None:
        self.entry = entry
        self.rounds = {
            m["round"]: m for m in measurements if m["kept"] and m["name"] == entry["name"]
        }
        self.failure = next((m["failed"] for m in self.rounds.values() if "failed" in m), None)

    def figure(self, find: Callable[[dict[str, Any]], float | None]) -> dict[int, float]:
        """A figure of the measurements by round, where it is found."""
        found = {} if self.failure else {r: find(m) for r, m in self.rounds.items()}
        return {r: value for r, value in found.items() if value is not None}


def cell(found: Spread | Iterable[float] | None) -> str:
    """The median, and the least and the most in brackets where they differ from it."""
    if found is None:
        return "–"
    found = found if isinstance(found, Spread) else spread(found)
    digits = 0 if found.median >= 100 else 1 if found.median >= 10 else 2
    median, least, most = (f"{value:,.{digits}f}" for value in found)
    return median if found.least == found.most else f"{median} ({least} – {most})"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown."""
    head = list(head)
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *rows])


def version_table(
    head: str, versions: Mapping[str, Mapping[str, str]], names: Mapping[str, str]
) -> str:
    """The versions of packages that each framework was measured with."""
    rows = (
        [names.get(framework, framework), ", ".join(f"{k} {v}" for k, v in found.items())]
        for framework, found in versions.items()
    )
    return table([head, "versions"], rows)
