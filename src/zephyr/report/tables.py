"""Results tables as strict JSON and CSV; texts of cells and columns.

JSON and CSV have unscaled values and their `scale`, and hold everything; the others hold a value
with its interval and a mark in each cell, multiplied by the scale.
"""

import csv
import io
import json
from collections.abc import Callable, Iterable
from typing import Any

from zephyr.report.node_status import NodeStatus
from zephyr.report.results import Cell, Column, Difference, ModelRow, Results
from zephyr.report.verdicts import Decision
from zephyr.stats.intervals import Estimate, may_undercover

VERDICT_MARKS = {"better": "▲", "worse": "▼", "cannot tell": "?"}
SECONDARY_MARKS = {"better": "△", "worse": "▽", "cannot tell": "?"}
GENERATED_NOTICE = (
    "The texts of this recipe are generated: sources and tasks that bear the names of public data "
    "sets hold stand-ins, and these scores are not comparable with published ones."
)


def format_number(value: float, scale: float, decimals_like: float | None = None) -> str:
    """Formats a score for display: one decimal for percent, else about four digits.

    With `decimals_like`, it has as many decimals as that value would have.
    """
    size = abs(value * scale)
    guide = size if decimals_like is None else abs(decimals_like * scale)
    decimals = 0 if guide >= 1000 else 1 if scale == 100 or guide >= 100 else 2
    text = f"{size:,.{decimals}f}"
    return f"−{text}" if value < 0 and any(c in "123456789" for c in text) else text


def format_interval(estimate: Estimate, scale: float) -> str:
    """Formats a confidence interval: "[low, high]"."""
    if estimate.low == estimate.high:
        return "[no spread]"  # one item, or equal ones: they have no interval
    return f"[{format_number(estimate.low, scale)}, {format_number(estimate.high, scale)}]"


def interval_text(column: Column, estimate: Estimate) -> str:
    """The confidence interval of a score or difference, with ≈ where it may hold less than 95 %."""
    approximate = "≈" if is_approximate(column, estimate) else ""
    return approximate + format_interval(estimate, column.scale)


def is_approximate(column: Column, estimate: Estimate) -> bool:
    return may_undercover(column.kind, estimate, bounded=column.bounded)


def verdict_mark(cell: Cell) -> str:
    """The mark of a cell's verdict: filled for a primary metric, hollow for a secondary one."""
    if cell.difference is None or cell.difference.verdict is None or cell.column.better is None:
        return ""
    marks = VERDICT_MARKS if cell.column.primary else SECONDARY_MARKS
    return marks[cell.difference.verdict]


def verdict_text(column: Column, decision: Decision | Difference, n: int) -> str:
    """The verdict on a difference of `n` items: its reasons, and how many items could tell."""
    if decision.verdict is None or column.better is None:
        return ""
    parts = [decision.verdict if column.primary else f"{decision.verdict} (secondary)"]
    if decision.note:
        parts.append(decision.note)
    if decision.items_needed is not None:
        parts.append(f"n={n:,}, about {round_up_items(decision.items_needed):,} could tell")
    return "; ".join(parts)


def round_up_items(count: int) -> int:
    """Rounds an estimated number of items up to two digits."""
    scale: int = 10 ** max(0, len(str(count)) - 2)
    return -(-count // scale) * scale


def format_signed(value: float, scale: float) -> str:
    """Formats a difference: a number with its sign."""
    text = format_number(value, scale)
    return f"+{text}" if value > 0 else text


def column_label(column: Column) -> str:
    """The label of a column in one line: task, metric, unit, and the better direction."""
    return " ".join(part for part in label_parts(column) if part)


def column_chance(results: Results, at: int) -> str:
    """What chance scores in a column, as "chance 25.0"; empty where it isn't known."""
    scale = results.columns[at].scale
    found = {
        format_number(cell.chance, scale)
        for row in results.rows
        if (cell := row.cells[at]).chance is not None
    }
    return f"chance {' or '.join(sorted(found))}" if found else ""


def label_parts(column: Column) -> tuple[str, str, str]:
    side = {"higher": "↑", "lower": "↓", None: ""}[column.better]
    return column.task, column.metric, f"% {side}".strip() if column.scale == 100 else side


# -- JSON and CSV ---------------------------------------------------------------------------------


def table_json(results: Results) -> str:
    """The results table as JSON, without NaN; where `value` is null, `empty` says why."""
    value = {
        "recipe": results.recipe.name,
        "seed": results.recipe.seed,
        "interval": 0.95,
        "generated_texts": results.recipe.origin == "embedded",
        "models": [_model_json(row) for row in results.rows],
        "nodes": [{"name": n, **_node_json(node)} for n, node in results.nodes.items()],
    }
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _model_json(row: ModelRow) -> dict[str, Any]:
    return {
        "model": row.model,
        "from": row.parent,
        "done": row.derivation,
        **_node_json(row.node),
        "cells": [_cell_json(cell) for cell in row.cells],
    }


def _node_json(node: NodeStatus) -> dict[str, Any]:
    return {
        "kind": node.kind,
        "state": node.state,
        "reason": node.reason,
        "seconds": node.seconds,
        "joules": node.joules,
        "bytes_made": node.artifact_bytes,
        "bytes_kept": node.run_bytes,
        "run": node.run.path.name.removesuffix(".part"),
    }


def _cell_json(cell: Cell) -> dict[str, Any]:
    difference = None
    if (found := cell.difference) is not None:
        difference = {
            "to": found.baseline,
            **_estimate_json(found.estimate),
            "verdict": found.verdict,
            "note": found.note,
            "p_corrected": found.p,
            "p_uncorrected": found.p_uncorrected,
            "comparisons": found.comparisons,
            "n_needed": found.items_needed,
            "empty": found.missing_reason,
        }
    return {
        **cell.column._asdict(),
        **_estimate_json(cell.estimate),
        "protocol": cell.protocol,
        "empty": cell.missing_reason,
        "approximate": cell.estimate is not None and is_approximate(cell.column, cell.estimate),
        "chance": cell.chance,
        "difference": difference,
        "published": cell.published,
        "groups": {name: _estimate_json(e) for name, e in (cell.groups or {}).items()},
    }


def _estimate_json(estimate: Estimate | None) -> dict[str, Any]:
    return dict.fromkeys(Estimate._fields) if estimate is None else estimate._asdict()


def table_csv(results: Results) -> str:
    """The results table as CSV: one line for each model and metric."""
    out = io.StringIO()
    lines = [
        _line_csv(results.recipe.name, row, cell) for row in results.rows for cell in row.cells
    ]
    if lines:
        writer = csv.DictWriter(out, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    return out.getvalue()


def _line_csv(recipe: str, row: ModelRow, cell: Cell) -> dict[str, Any]:
    made = {"recipe": recipe, "model": row.model, "from": row.parent, "done": row.derivation}
    values = _cell_json(cell)
    difference = values.pop("difference") or dict.fromkeys(_DIFFERENCE_COLUMNS)
    del values["groups"]
    return (
        made | values | {_DIFFERENCE_COLUMNS[key]: difference[key] for key in _DIFFERENCE_COLUMNS}
    )


_DIFFERENCE_COLUMNS = {
    "to": "difference_to",
    "value": "difference",
    "low": "difference_low",
    "high": "difference_high",
    "n": "difference_n",
    "verdict": "verdict",
    "p_corrected": "p_corrected",
    "comparisons": "comparisons",
    "n_needed": "n_needed",
    "empty": "difference_empty",
    "note": "verdict_note",
    "p_uncorrected": "p_uncorrected",
}
"""The columns of the CSV that hold a difference."""


# -- texts of a column -----------------------------------------------------------------------------


def column_protocols(results: Results, at: int) -> list[str]:
    """The protocols of a column; if there are several, each with its models."""
    found = results.protocols(at)
    if len(found) == 1:
        return list(found)
    return [f"{protocol} ({', '.join(models)})" for protocol, models in found.items()]


def column_groups(results: Results, at: int) -> list[tuple[str, list[Estimate | None]]]:
    """The groups of a column, each with the estimates of all models; [] for a single group."""
    cells = [row.cells[at] for row in results.asked_rows]
    names = dict.fromkeys(name for cell in cells for name in cell.groups or ())
    if len(names) < 2:
        return []
    return [(name, [(cell.groups or {}).get(name) for cell in cells]) for name in names]


# -- notes on cells --------------------------------------------------------------------------------


def missing_reasons(results: Results, places: Iterable[int]) -> dict[str, list[str]]:
    """The reasons why scores are missing, and which ones."""
    return _cell_names(results, places, lambda cell: cell.missing_reason)


def verdict_notes(results: Results, places: Iterable[int]) -> dict[str, list[str]]:
    """Why intervals and verdicts seem to contradict each other, and which ones."""
    return _cell_names(
        results, places, lambda cell: cell.difference.note if cell.difference else None
    )


def _cell_names(
    results: Results, places: Iterable[int], read: Callable[[Cell], Any]
) -> dict[str, list[str]]:
    """The names of cells by a text of theirs; cells without one are left out."""
    places, found = list(places), dict[str, list[str]]()
    for row in results.asked_rows:
        for at in places:
            if text := read(row.cells[at]):
                column = results.columns[at]
                found.setdefault(text, []).append(f"{row.model} {column.task} {column.metric}")
    return found
