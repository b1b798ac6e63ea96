"""Tables of a ledger: strict JSON, Markdown, CSV, and one for the terminal.

JSON and CSV hold plain values and their `scale`; what people read is multiplied by it.
"""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from zephyr.report.ledger import Cell, Column, Difference, Entry, Ledger, Row
from zephyr.stats.intervals import Estimate

if TYPE_CHECKING:
    from rich.console import RenderableType

MARKS = {"better": "▲", "worse": "▼", "cannot tell": "?"}
GENERATED = (
    "The texts of this recipe are generated: sources and tasks that bear the names of public data "
    "sets hold stand-ins, and these scores are not comparable with published ones."
)


def number(value: float, scale: float, like: float | None = None) -> str:
    """A value as people read it: one decimal for percent, else about four digits.

    With `like`, it has as many decimals as that value would have.
    """
    size = abs(value * scale)
    guide = size if like is None else abs(like * scale)
    decimals = 0 if guide >= 1000 else 1 if scale == 100 or guide >= 100 else 2
    text = f"{size:,.{decimals}f}"
    return f"−{text}" if value < 0 and any(c in "123456789" for c in text) else text


def interval(estimate: Estimate, scale: float) -> str:
    return f"[{number(estimate.low, scale)}, {number(estimate.high, scale)}]"


def said(gap: Difference) -> str:
    """The verdict on a difference, and the items that could tell where these can't."""
    if gap.verdict != "cannot tell" or gap.estimate is None or gap.needed is None:
        return gap.verdict or ""
    return f"cannot tell at n={gap.estimate.n:,}; about {rounded(gap.needed):,} could"


def rounded(count: int) -> int:
    """A number of items to two figures, for an estimate is no more exact."""
    scale: int = 10 ** max(0, len(str(count)) - 2)
    return -(-count // scale) * scale


def signed(value: float, scale: float) -> str:
    text = number(value, scale)
    return f"+{text}" if value > 0 else text


def label(column: Column) -> str:
    """The name of a column in one line: task, metric, unit, and the side that is better."""
    return " ".join(part for part in _label_parts(column) if part)


def _label_parts(column: Column) -> tuple[str, str, str]:
    side = {"higher": "↑", "lower": "↓", None: ""}[column.better]
    return column.task, column.metric, f"% {side}".strip() if column.scale == 100 else side


# -- JSON and CSV ---------------------------------------------------------------------------------


def table_json(ledger: Ledger) -> str:
    """Everything in the ledger, without NaN; `value` is null just where `empty` says why."""
    value = {
        "recipe": ledger.recipe.name,
        "seed": ledger.recipe.seed,
        "interval": 0.95,
        "generated_texts": ledger.recipe.origin == "embedded",
        "models": [_row_json(row) for row in ledger.rows],
        "nodes": [{"name": n, **_entry_json(entry)} for n, entry in ledger.entries.items()],
    }
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _row_json(row: Row) -> dict[str, Any]:
    return {
        "model": row.model,
        "from": row.parent,
        "done": row.done,
        **_entry_json(row.entry),
        "cells": [_cell_json(cell) for cell in row.cells],
    }


def _entry_json(entry: Entry) -> dict[str, Any]:
    return {
        "kind": entry.kind,
        "state": entry.state,
        "reason": entry.reason,
        "seconds": entry.seconds,
        "joules": entry.joules,
        "bytes_made": entry.made,
        "bytes_kept": entry.kept,
        "run": entry.run.path.name.removesuffix(".part"),
    }


def _cell_json(cell: Cell) -> dict[str, Any]:
    difference = None
    if (found := cell.difference) is not None:
        difference = {
            "to": found.to,
            **_estimate_json(found.estimate),
            "verdict": found.verdict,
            "p_corrected": found.p,
            "comparisons": found.comparisons,
            "n_needed": found.needed,
            "empty": found.empty,
        }
    return {
        **cell.column._asdict(),
        **_estimate_json(cell.estimate),
        "protocol": cell.protocol,
        "empty": cell.empty,
        "difference": difference,
        "published": cell.published,
        "groups": {name: _estimate_json(e) for name, e in (cell.groups or {}).items()},
    }


def _estimate_json(estimate: Estimate | None) -> dict[str, Any]:
    return dict.fromkeys(Estimate._fields) if estimate is None else estimate._asdict()


def table_csv(ledger: Ledger) -> str:
    """One line for each model and metric."""
    out = io.StringIO()
    lines = [_line_csv(ledger.recipe.name, row, cell) for row in ledger.rows for cell in row.cells]
    if lines:
        writer = csv.DictWriter(out, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    return out.getvalue()


def _line_csv(recipe: str, row: Row, cell: Cell) -> dict[str, Any]:
    made = {"recipe": recipe, "model": row.model, "from": row.parent, "done": row.done}
    values = _cell_json(cell)
    gap = values.pop("difference") or dict.fromkeys(_DIFFERENCE)
    del values["groups"]
    return made | values | {_DIFFERENCE[key]: gap[key] for key in _DIFFERENCE}


_DIFFERENCE = {
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


def table_markdown(ledger: Ledger) -> str:
    """The headline metrics, how they were measured, the groups, and all other metrics."""
    parts = [f"# {ledger.recipe.name}: scores of {len(ledger.rows)} models"]
    if ledger.recipe.origin == "embedded":
        parts.append(GENERATED)
    headlines = [ledger.columns[at] for at in ledger.headlines]
    others = [column for column in ledger.columns if not column.headline]
    parts += ["## Headline metrics", _scores_markdown(ledger, headlines)]
    parts.append(
        "A cell holds the value, its 95 % interval, the number of items, and the paired difference "
        "to the model that this one comes from, with its 95 % interval and verdict. Verdicts are "
        "corrected for the number of comparisons in the table (Holm); where the items cannot tell, "
        "the number is told at which a difference such as this could be, four times in five."
    )
    if (theirs := ledger.recipe.published) is not None:
        parts.append(f"Published: {theirs.source}. {theirs.note or ''}".strip())
    parts += ["## Protocols", _protocols_markdown(ledger)]
    if groups := list(_groups_markdown(ledger)):
        parts += ["## Groups", *groups]
    if others:
        parts += ["## Other metrics", _scores_markdown(ledger, others)]
    return "\n\n".join(parts) + "\n"


def _scores_markdown(ledger: Ledger, columns: Sequence[Column]) -> str:
    """Models side by side, a line for each metric."""
    places = [ledger.columns.index(column) for column in columns]
    lines = [
        [label(column), *(_cell_markdown(row.cells[at]) for row in ledger.rows)]
        for at, column in zip(places, columns, strict=True)
    ]
    heads = [
        row.model + (f" ← {row.parent}" if row.parent else "") + f": {row.done}"
        for row in ledger.rows
    ]
    return _grid_markdown(["", *heads], lines)


def _cell_markdown(cell: Cell) -> str:
    theirs = "" if cell.published is None else f"; published: {cell.published:g}"
    return _own_markdown(cell) + theirs


def _own_markdown(cell: Cell) -> str:
    scale, gap = cell.column.scale, cell.difference
    if cell.estimate is None:
        return f"– ({cell.empty})"
    found = cell.estimate
    text = f"{number(found.value, scale)} {interval(found, scale)} n={found.n}"
    if gap is None:
        return text
    if gap.estimate is None:
        return f"{text}; no difference ({gap.empty})"
    by = f"{signed(gap.estimate.value, scale)} {interval(gap.estimate, scale)}"
    return f"{text}; {by} {said(gap)}"


def _protocols_markdown(ledger: Ledger) -> str:
    lines = [
        f"- {_escaped(label(column))}: {_escaped(said)}"
        for at, column in enumerate(ledger.columns)
        for said in protocols_of(ledger, at)
    ]
    return "\n".join(lines) or "Nothing has been measured yet."


def protocols_of(ledger: Ledger, at: int) -> list[str]:
    """The protocol of a column; where models were asked differently, each with its models."""
    found = ledger.protocols(at)
    if len(found) == 1:
        return list(found)
    return [f"{protocol} ({', '.join(models)})" for protocol, models in found.items()]


def _groups_markdown(ledger: Ledger) -> Iterable[str]:
    for at in ledger.headlines:
        if groups := groups_of(ledger, at):
            scale = ledger.columns[at].scale
            yield f"### {_escaped(label(ledger.columns[at]))}"
            yield _grid_markdown(
                ["", *(row.model for row in ledger.rows)],
                [[name, *(_group_markdown(e, scale) for e in found)] for name, found in groups],
            )


def _group_markdown(estimate: Estimate | None, scale: float) -> str:
    if estimate is None:
        return "–"
    return f"{number(estimate.value, scale)} {interval(estimate, scale)} n={estimate.n}"


def groups_of(ledger: Ledger, at: int) -> list[tuple[str, list[Estimate | None]]]:
    """The groups of a column, each with the estimates of all models; a lone group is none."""
    cells = [row.cells[at] for row in ledger.rows]
    names = dict.fromkeys(name for cell in cells for name in cell.groups or ())
    if len(names) < 2:
        return []
    return [(name, [(cell.groups or {}).get(name) for cell in cells]) for name in names]


def _grid_markdown(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [heads, ["---", *("---:" for _ in heads[1:])], *lines]
    return "\n".join(f"| {' | '.join(map(_escaped, row))} |" for row in rows)


def _escaped(text: str) -> str:
    """Text that stays in its cell and is read as text."""
    marks = {"\\": "\\\\", "|": "\\|", "<": "&lt;", ">": "&gt;", "`": "\\`", "*": "\\*"}
    return " ".join("".join(marks.get(c, c) for c in text).split())


# -- terminal -------------------------------------------------------------------------------------


def console_table(ledger: Ledger) -> "RenderableType":
    """The headline metrics for a terminal of 100 columns, and below them their protocols."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    headlines = ledger.headlines
    table = Table(box=None, pad_edge=False, padding=(0, 1, 1, 0))
    table.add_column("model", vertical="top", overflow="fold")
    for at in headlines:
        task, metric, unit = _label_parts(ledger.columns[at])
        heading = "\n".join((task, *metric.split("_"), unit))
        table.add_column(heading, justify="right", overflow="fold")
    for row in ledger.rows:
        model = Text(row.model, style="bold")
        if row.parent:
            model.append(f"\n← {row.parent}", style="not bold dim")
        table.add_row(model, *(_cell_console(row.cells[at]) for at in headlines))
    parts: list[RenderableType] = [table]
    parts.append(Text("± is half the width of the 95 % interval. Against the model it comes from:"))
    parts.append(Text("  ▲ better   ▼ worse   ? cannot tell   – no value\n"))
    for at in headlines:
        parts += [Text(f"  {said}") for said in protocols_of(ledger, at)]
    for reason, where in _reasons(ledger, headlines).items():
        parts.append(Text(f"  – {reason}: {', '.join(where)}", style="yellow"))
    if ledger.recipe.origin == "embedded":
        parts.append(Text(f"\n{GENERATED}", style="dim"))
    return Group(*parts)


def _cell_console(cell: Cell) -> Any:
    from rich.text import Text

    if cell.estimate is None:
        return Text("–", style="dim")
    scale, found = cell.column.scale, cell.estimate
    text = Text(number(found.value, scale))
    if cell.difference and cell.difference.verdict:
        mark = cell.difference.verdict
        style = {"better": "green", "worse": "red", "cannot tell": "dim"}[mark]
        text.append(f" {MARKS[mark]}", style=style)
    text.append(f"\n±{number((found.high - found.low) / 2, scale, found.value)}", style="dim")
    return text


def _reasons(ledger: Ledger, places: Iterable[int]) -> dict[str, list[str]]:
    """Why cells are empty, and which ones."""
    found: dict[str, list[str]] = {}
    for row in ledger.rows:
        for at in places:
            if reason := row.cells[at].empty:
                column = ledger.columns[at]
                found.setdefault(reason, []).append(f"{row.model} {column.task} {column.metric}")
    return found
