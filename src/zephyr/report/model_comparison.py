"""Model comparison: any two models, on shared items of the same protocol (Holm-corrected)."""

import re
from typing import Any, NamedTuple

from zephyr.errors import ZephyrError, unknown_name_error
from zephyr.report.paired_comparison import compare_paired
from zephyr.report.results import Cell, Column, Results, read_results
from zephyr.report.verdicts import Decision, PairedResult, decide
from zephyr.runs.store import Store
from zephyr.stats.intervals import Estimate
from zephyr.stats.significance import PairedTestResult


class MetricComparison(NamedTuple):
    """Comparison of two models in a metric: scores, difference and verdict; or why there is none.

    `decision` is None where there is no difference: the verdicts of primary metrics are
    Holm-corrected for all of these. `chance` is the score by chance.
    """

    column: Column
    first: Estimate | None
    second: Estimate | None
    difference: Estimate | None
    decision: Decision | None
    missing_reason: str | None
    chance: float | None


class _Uncorrected(NamedTuple):
    column: Column
    first: Cell
    second: Cell
    difference: Estimate
    evidence: PairedTestResult


def compare_models(store: Store, first: str, second: str) -> list[MetricComparison]:
    """Compares two models in every metric that either has; each is named RECIPE/MODEL.

    Raises:
        ZephyrError: a recipe was never run here, or has no such model.
    """
    (results_a, model_a), (results_b, model_b) = (
        _find_model(store, first),
        _find_model(store, second),
    )
    cells_a, cells_b = _cells(results_a, model_a), _cells(results_b, model_b)
    rows: list[MetricComparison | _Uncorrected] = []
    for key in dict.fromkeys([*cells_a, *cells_b]):
        a, b = cells_a.get(key), cells_b.get(key)
        if a is None or b is None or a.estimate is None or b.estimate is None:
            rows.append(_missing_value(a, b, first, second))
            continue
        if _comparable_protocol(a) != _comparable_protocol(b):
            rows.append(
                _not_compared(
                    a, b, f"asked in two ways: {_comparable_protocol(a)}; {_comparable_protocol(b)}"
                )
            )
            continue
        comparison = compare_paired(
            results_b.nodes[f"{model_b}/{b.column.task}"].run.path,
            results_a.nodes[f"{model_a}/{a.column.task}"].run.path,
            b.column.metric,
            b.column.kind,
            results_a.recipe.seed,
            b.column.bounded,
        )
        if isinstance(comparison, str):
            rows.append(_not_compared(a, b, comparison))
        else:
            rows.append(_Uncorrected(b.column, a, b, comparison.difference, comparison.evidence))
    return _with_corrected_verdicts(rows)


def _with_corrected_verdicts(
    found: list[MetricComparison | _Uncorrected],
) -> list[MetricComparison]:
    decisions = decide(
        {
            each.column: PairedResult(
                each.difference, each.evidence, each.column.better, each.column.primary
            )
            for each in found
            if isinstance(each, _Uncorrected)
        }
    )
    return [
        each
        if isinstance(each, MetricComparison)
        else MetricComparison(
            each.column,
            each.first.estimate,
            each.second.estimate,
            each.difference,
            decisions[each.column],
            None,
            each.second.chance,
        )
        for each in found
    ]


def _find_model(store: Store, name: str) -> tuple[Results, str]:
    recipe, slash, model = name.rpartition("/")
    if not slash:
        raise ZephyrError(
            "a model is named by its recipe and itself",
            found=name,
            allowed="RECIPE/MODEL, such as embedded/M1",
        )
    results = read_results(store, recipe)
    if model not in results.recipe.models:
        raise unknown_name_error("model", model, results.recipe.models, where=f"recipe {recipe}")
    return results, model


def _cells(results: Results, model: str) -> dict[tuple[str, str], Cell]:
    row = next(row for row in results.rows if row.model == model)
    return {(cell.column.task, cell.column.metric): cell for cell in row.cells}


def _comparable_protocol(cell: Cell) -> str:
    """The protocol without the number of items, and without a reference that is not used."""
    protocol = re.sub(r" · n=\d+$", "", cell.protocol or "")
    is_reward = cell.column.metric.startswith("reward_")
    return protocol if is_reward else re.sub(r" · against [^·]+$", "", protocol)


def _missing_value(a: Cell | None, b: Cell | None, first: str, second: str) -> MetricComparison:
    reason = next(
        f"{name}: {'not asked' if cell is None else cell.missing_reason}"
        for name, cell in ((first, a), (second, b))
        if cell is None or cell.estimate is None
    )
    return _not_compared(a, b, reason)


def _not_compared(a: Cell | None, b: Cell | None, reason: str) -> MetricComparison:
    some = a or b
    assert some is not None, "one of both has the metric"
    first, second = (None if cell is None else cell.estimate for cell in (a, b))
    return MetricComparison(some.column, first, second, None, None, reason, some.chance)


def comparison_json(row: MetricComparison) -> dict[str, Any]:
    """A comparison as JSON values."""

    def estimate_json(found: Estimate | None) -> dict[str, Any] | None:
        return None if found is None else found._asdict()

    decision = row.decision
    return {
        "task": row.column.task,
        "metric": row.column.metric,
        "scale": row.column.scale,
        "first": estimate_json(row.first),
        "second": estimate_json(row.second),
        "difference": estimate_json(row.difference),
        "p_corrected": decision and decision.p,
        "verdict": decision and decision.verdict,
        "n_needed": decision and decision.items_needed,
        "empty": row.missing_reason,
        "primary": row.column.primary,
        "p_uncorrected": decision and decision.p_uncorrected,
        "note": decision and decision.note,
        "chance": row.chance,
    }
