"""Verdicts on differences: Holm-corrected for primary metrics, by their own p for secondary ones.

One generation has many scores that say nearly the same. Corrected together they would cost each
other their verdicts, so that only one metric of each task is.
"""

from collections.abc import Hashable, Mapping
from typing import NamedTuple, TypeVar

from zephyr.stats.intervals import (
    BetterDirection,
    Estimate,
    Verdict,
    decide_verdict,
    explain_disagreement,
)
from zephyr.stats.significance import PairedTestResult, holm_correction, required_sample_size

Key = TypeVar("Key", bound=Hashable)


class PairedResult(NamedTuple):
    """A paired difference, the test behind it, and the metric's better direction and rank."""

    difference: Estimate
    evidence: PairedTestResult
    better: BetterDirection | None
    primary: bool


class Decision(NamedTuple):
    """A verdict and what it is by: `p` is corrected for `comparisons`, None for secondary metrics.

    `note` says why interval and verdict seem to contradict each other; with `items_needed`
    items, more than were asked, a difference that can't be told would be.
    """

    verdict: Verdict
    p: float | None
    p_uncorrected: float
    note: str | None
    comparisons: int
    items_needed: int | None


def decide(results: Mapping[Key, PairedResult]) -> dict[Key, Decision]:
    """The decisions on all differences of a table or a comparison."""
    family = [key for key, found in results.items() if found.primary and found.better is not None]
    corrected = dict(
        zip(family, holm_correction([results[key].evidence.p for key in family]), strict=True)
    )
    return {
        key: _decide_one(found, corrected.get(key), len(family) if key in corrected else 0)
        for key, found in results.items()
    }


def _decide_one(found: PairedResult, p: float | None, comparisons: int) -> Decision:
    own_p = found.evidence.p
    verdict = decide_verdict(found.difference, found.better, own_p if p is None else p)
    if found.better is None:
        return Decision(verdict, None, own_p, None, 0, None)
    needed = None
    if verdict == "cannot tell":
        needed = required_sample_size(found.evidence, max(comparisons, 1))
        if needed is not None and needed <= found.difference.n:
            needed = None  # so many were asked, and could not: the difference may be none
    note = explain_disagreement(found.difference, own_p, p)
    return Decision(verdict, p, own_p, note, comparisons, needed)
