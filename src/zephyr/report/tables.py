"""Results tables as strict JSON, Markdown, CSV, and for the terminal (rich).

JSON and CSV have unscaled values and their `scale`; displayed values are multiplied by it.
"""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from zephyr.report.node_status import NodeStatus
from zephyr.report.results import Cell, Column, Difference, ModelRow, Results
from zephyr.stats.intervals import Estimate

if TYPE_CHECKING:
    from rich.console import RenderableType

VERDICT_MARKS = {"better": "▲", "worse": "▼", "cannot tell": "?"}
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
    return f"[{format_number(estimate.low, scale)}, {format_number(estimate.high, scale)}]"


def verdict_text(difference: Difference) -> str:
    """The verdict on a difference, with the number of items needed if it is undecided."""
    if (
        difference.verdict != "cannot tell"
        or difference.estimate is None
        or difference.items_needed is None
    ):
        return difference.verdict or ""
    needed = round_up_items(difference.items_needed)
    return f"cannot tell at n={difference.estimate.n:,}; about {needed:,} could"


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
    return " ".join(part for part in _label_parts(column) if part)


def _label_parts(column: Column) -> tuple[str, str, str]:
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
            "p_corrected": found.p,
            "comparisons": found.comparisons,
            "n_needed": found.items_needed,
            "empty": found.missing_reason,
        }
    return {
        **cell.column._asdict(),
        **_estimate_json(cell.estimate),
        "protocol": cell.protocol,
        "empty": cell.missing_reason,
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
}
"""The columns of the CSV that hold a difference."""


# -- Markdown -------------------------------------------------------------------------------------


def table_markdown(results: Results) -> str:
    """The results table as Markdown: headline metrics, protocols, groups, other metrics."""
    parts = [f"# {results.recipe.name}: scores of {len(results.rows)} models"]
    if results.recipe.origin == "embedded":
        parts.append(GENERATED_NOTICE)
    headlines = [results.columns[at] for at in results.headline_indices]
    others = [column for column in results.columns if not column.headline]
    parts += ["## Headline metrics", _scores_markdown(results, headlines)]
    parts.append(
        "A cell holds the value, its 95 % interval, the number of items, and the paired difference "
        "to the model that this one comes from, with its 95 % interval and verdict. Verdicts are "
        "corrected for the number of comparisons in the table (Holm); where the items cannot tell, "
        "the number is told at which a difference such as this could be, four times in five."
    )
    if (published := results.recipe.published) is not None:
        parts.append(f"Published: {published.source}. {published.note or ''}".strip())
    parts += ["## Protocols", _protocols_markdown(results)]
    if groups := list(_groups_markdown(results)):
        parts += ["## Groups", *groups]
    if others:
        parts += ["## Other metrics", _scores_markdown(results, others)]
    return "\n\n".join(parts) + "\n"


def _scores_markdown(results: Results, columns: Sequence[Column]) -> str:
    """A Markdown table with a column for each model, and a row for each metric."""
    places = [results.columns.index(column) for column in columns]
    lines = [
        [column_label(column), *(_cell_markdown(row.cells[at]) for row in results.rows)]
        for at, column in zip(places, columns, strict=True)
    ]
    heads = [
        row.model + (f" ← {row.parent}" if row.parent else "") + f": {row.derivation}"
        for row in results.rows
    ]
    return _grid_markdown(["", *heads], lines)


def _cell_markdown(cell: Cell) -> str:
    published = "" if cell.published is None else f"; published: {cell.published:g}"
    return _score_markdown(cell) + published


def _score_markdown(cell: Cell) -> str:
    scale, difference = cell.column.scale, cell.difference
    if cell.estimate is None:
        return f"– ({cell.missing_reason})"
    found = cell.estimate
    text = f"{format_number(found.value, scale)} {format_interval(found, scale)} n={found.n}"
    if difference is None:
        return text
    if difference.estimate is None:
        return f"{text}; no difference ({difference.missing_reason})"
    difference_text = (
        f"{format_signed(difference.estimate.value, scale)} "
        f"{format_interval(difference.estimate, scale)}"
    )
    return f"{text}; {difference_text} {verdict_text(difference)}"


def _protocols_markdown(results: Results) -> str:
    lines = [
        f"- {_escape_table_cell(column_label(column))}: {_escape_table_cell(protocol)}"
        for at, column in enumerate(results.columns)
        for protocol in column_protocols(results, at)
    ]
    return "\n".join(lines) or "Nothing has been measured yet."


def column_protocols(results: Results, at: int) -> list[str]:
    """The protocols of a column; if there are several, each with its models."""
    found = results.protocols(at)
    if len(found) == 1:
        return list(found)
    return [f"{protocol} ({', '.join(models)})" for protocol, models in found.items()]


def _groups_markdown(results: Results) -> Iterable[str]:
    for at in results.headline_indices:
        if groups := column_groups(results, at):
            scale = results.columns[at].scale
            yield f"### {_escape_table_cell(column_label(results.columns[at]))}"
            yield _grid_markdown(
                ["", *(row.model for row in results.rows)],
                [[name, *(_group_markdown(e, scale) for e in found)] for name, found in groups],
            )


def _group_markdown(estimate: Estimate | None, scale: float) -> str:
    if estimate is None:
        return "–"
    return (
        f"{format_number(estimate.value, scale)} {format_interval(estimate, scale)} n={estimate.n}"
    )


def column_groups(results: Results, at: int) -> list[tuple[str, list[Estimate | None]]]:
    """The groups of a column, each with the estimates of all models; [] for a single group."""
    cells = [row.cells[at] for row in results.rows]
    names = dict.fromkeys(name for cell in cells for name in cell.groups or ())
    if len(names) < 2:
        return []
    return [(name, [(cell.groups or {}).get(name) for cell in cells]) for name in names]


def _grid_markdown(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [heads, ["---", *("---:" for _ in heads[1:])], *lines]
    return "\n".join(f"| {' | '.join(map(_escape_table_cell, row))} |" for row in rows)


def _escape_table_cell(text: str) -> str:
    """Escapes Markdown, so that a text stays in its table cell."""
    marks = {"\\": "\\\\", "|": "\\|", "<": "&lt;", ">": "&gt;", "`": "\\`", "*": "\\*"}
    return " ".join("".join(marks.get(c, c) for c in text).split())


# -- terminal -------------------------------------------------------------------------------------


def console_table(results: Results) -> "RenderableType":
    """The results table for a terminal of 100 columns: headline metrics and protocols."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    headlines = results.headline_indices
    table = Table(box=None, pad_edge=False, padding=(0, 1, 1, 0))
    table.add_column("model", vertical="top", overflow="fold")
    for at in headlines:
        task, metric, unit = _label_parts(results.columns[at])
        heading = "\n".join((task, *metric.split("_"), unit))
        table.add_column(heading, justify="right", overflow="fold")
    for row in results.rows:
        model = Text(row.model, style="bold")
        if row.parent:
            model.append(f"\n← {row.parent}", style="not bold dim")
        table.add_row(model, *(_cell_console(row.cells[at]) for at in headlines))
    parts: list[RenderableType] = [table]
    parts.append(Text("± is half the width of the 95 % interval. Against the model it comes from:"))
    parts.append(Text("  ▲ better   ▼ worse   ? cannot tell   – no value\n"))
    for at in headlines:
        parts += [Text(f"  {protocol}") for protocol in column_protocols(results, at)]
    for reason, where in _missing_reasons(results, headlines).items():
        parts.append(Text(f"  – {reason}: {', '.join(where)}", style="yellow"))
    if results.recipe.origin == "embedded":
        parts.append(Text(f"\n{GENERATED_NOTICE}", style="dim"))
    return Group(*parts)


def _cell_console(cell: Cell) -> Any:
    from rich.text import Text

    if cell.estimate is None:
        return Text("–", style="dim")
    scale, found = cell.column.scale, cell.estimate
    text = Text(format_number(found.value, scale))
    if cell.difference and cell.difference.verdict:
        verdict = cell.difference.verdict
        style = {"better": "green", "worse": "red", "cannot tell": "dim"}[verdict]
        text.append(f" {VERDICT_MARKS[verdict]}", style=style)
    text.append(
        f"\n±{format_number((found.high - found.low) / 2, scale, found.value)}", style="dim"
    )
    return text


def _missing_reasons(results: Results, places: Iterable[int]) -> dict[str, list[str]]:
    """The reasons why scores are missing, and which ones."""
    found: dict[str, list[str]] = {}
    for row in results.rows:
        for at in places:
            if reason := row.cells[at].missing_reason:
                column = results.columns[at]
                found.setdefault(reason, []).append(f"{row.model} {column.task} {column.metric}")
    return found
