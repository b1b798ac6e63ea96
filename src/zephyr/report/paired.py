"""Differences of two evaluations on the items that both were asked."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from zephyr.runs.store import Run, read_json_lines
from zephyr.stats.intervals import Estimate, Kind, difference
from zephyr.stats.significance import Evidence, evidence

ROUNDING = 1e-6
"""Of an item's value, what two ways of one computation in float32 may differ by.

A merged adapter moved the summed log-probabilities of 200 windows by 3e-8 of each, all to one side:
by the test alone that was `better`.
"""


class Told(NamedTuple):
    """A difference, and the evidence for it."""

    gap: Estimate
    evidence: Evidence


@cache  # finished runs never change
def paired(ours: Path, theirs: Path, metric: str, kind: Kind, seed: int) -> Told | str:
    """The difference of two evaluations on the items that both have, or why there is none."""
    mine, base = (items_of(run)[metric] for run in (ours, theirs))
    shared = [key for key in mine if key in base]
    if not shared:
        return "no item was asked of both"
    pairs = [(*mine[key], *base[key]) for key in shared]
    return _differ(pairs, kind, seed)


def _differ(
    pairs: Sequence[tuple[float, float, float, float]], kind: Kind, seed: int
) -> Told | str:
    if not all(math.isfinite(each) for pair in pairs for each in pair):
        return "not a finite number"
    if all(_same(pair) for pair in pairs):  # what every resample would give
        return Told(Estimate(0.0, 0.0, 0.0, len(pairs)), Evidence(1.0, 0.0, 0.0))
    even = [(*pair[:2], *pair[:2]) if _same(pair) else pair for pair in pairs]
    mine, weights, base, base_weights = zip(*even, strict=True)
    found = difference(mine, base, weights, base_weights, kind=kind, seed=seed)
    if not all(map(math.isfinite, found)):
        return "not a finite number"
    return Told(found, evidence(mine, base, weights, base_weights, kind=kind, seed=seed))


def _same(pair: tuple[float, float, float, float]) -> bool:
    """Whether an item's values and weights differ by no more than the order of their sums does."""
    value, weight, base, base_weight = pair
    return weight == base_weight and math.isclose(value, base, rel_tol=ROUNDING)


@cache
def items_of(run: Path) -> dict[str, dict[tuple[str, int], tuple[float, float]]]:
    """By metric: the value and the weight of each item of an evaluation that has it."""
    found: dict[str, dict[tuple[str, int], tuple[float, float]]] = {}
    for key, item in _numbered(read_json_lines(Run(run).artifact / "items.jsonl")):
        for metric, value in item["scores"].items():
            weight = item.get("weight", {}).get(metric, 1.0)
            found.setdefault(metric, {})[key] = (value, weight)
    return found


def _numbered(items: Sequence[Any]) -> Iterator[tuple[tuple[str, int], Any]]:
    """Items under their id, those with an equal id told apart by their place among each other."""
    seen: Counter[str] = Counter()
    for item in items:
        yield (item["id"], seen[item["id"]]), item
        seen[item["id"]] += 1
