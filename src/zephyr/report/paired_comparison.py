"""Paired comparison of two evaluations on their shared items (McNemar or permutation test)."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from zephyr.runs.store import Run, read_json_lines
from zephyr.stats.intervals import Estimate, StatisticKind, paired_difference
from zephyr.stats.significance import PairedTestResult, paired_test

RELATIVE_TOLERANCE = 1e-6
"""The relative tolerance within which two float32 computations of an item's value are equal.

Merging an adapter changed the summed log-probabilities of 200 windows by 3e-8 of each, all in one
direction: without the tolerance the test calls that `better`.
"""


class Comparison(NamedTuple):
    """A paired difference with its confidence interval, and the test behind it (p-value)."""

    difference: Estimate
    evidence: PairedTestResult


@cache  # finished runs never change
def compare_paired(
    run_path: Path,
    baseline_path: Path,
    metric: str,
    kind: StatisticKind,
    seed: int,
    bounded: bool,
) -> Comparison | str:
    """Compares two evaluations on their shared items; the reason if that is impossible."""
    scores, baseline_scores = (read_item_scores(run)[metric] for run in (run_path, baseline_path))
    shared = [key for key in scores if key in baseline_scores]
    if not shared:
        return "no item was asked of both"
    pairs = [(*scores[key], *baseline_scores[key]) for key in shared]
    return _paired_difference(pairs, kind, seed, bounded)


def _paired_difference(
    pairs: Sequence[tuple[float, float, float, float]],
    kind: StatisticKind,
    seed: int,
    bounded: bool,
) -> Comparison | str:
    if not all(math.isfinite(each) for pair in pairs for each in pair):
        return "not a finite number"
    rounded_pairs = [(*pair[:2], *pair[:2]) if _is_equal(pair) else pair for pair in pairs]
    values, weights, baseline, baseline_weights = zip(*rounded_pairs, strict=True)
    found = paired_difference(
        values, baseline, weights, baseline_weights, kind=kind, bounded=bounded, seed=seed
    )
    if not all(map(math.isfinite, found)):
        return "not a finite number"
    return Comparison(
        found, paired_test(values, baseline, weights, baseline_weights, kind=kind, seed=seed)
    )


def _is_equal(pair: tuple[float, float, float, float]) -> bool:
    """Whether an item's values and weights are equal within float32 summation order."""
    value, weight, baseline, baseline_weight = pair
    return weight == baseline_weight and math.isclose(value, baseline, rel_tol=RELATIVE_TOLERANCE)


@cache
def read_item_scores(run: Path) -> dict[str, dict[tuple[str, int], tuple[float, float]]]:
    """Reads the scores of an evaluation: by metric, the value and the weight of each item."""
    found: dict[str, dict[tuple[str, int], tuple[float, float]]] = {}
    for key, item in _with_occurrence(read_json_lines(Run(run).artifact / "items.jsonl")):
        for metric, value in item["scores"].items():
            weight = item.get("weight", {}).get(metric, 1.0)
            found.setdefault(metric, {})[key] = (value, weight)
    return found


def _with_occurrence(items: Sequence[Any]) -> Iterator[tuple[tuple[str, int], Any]]:
    """Items keyed by id and occurrence, so that items with equal ids are kept apart."""
    seen: Counter[str] = Counter()
    for item in items:
        yield (item["id"], seen[item["id"]]), item
        seen[item["id"]] += 1
