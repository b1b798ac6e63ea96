"""The results table for a terminal (rich), with its reading in plain words."""

from typing import TYPE_CHECKING, Any

from zephyr.report.plain_words import model_sentences, score_notes
from zephyr.report.results import Cell, Results
from zephyr.report.tables import (
    GENERATED_NOTICE,
    column_chance,
    column_protocols,
    format_number,
    is_approximate,
    label_parts,
    missing_reasons,
    verdict_mark,
    verdict_notes,
)
from zephyr.stats.intervals import Estimate

if TYPE_CHECKING:
    from rich.console import RenderableType


def console_table(results: Results) -> "RenderableType":
    """The results table for a terminal of 100 columns: headline metrics and protocols.

    A recipe without tasks has no table.
    """
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    headlines = results.headline_indices
    if not headlines:
        return Text(
            "No scores: the recipe asks no model a task (`evaluate: {tasks: [hellaswag]}`)."
        )
    table = Table(box=None, pad_edge=False, padding=(0, 1, 1, 0))
    table.add_column("model", vertical="top", overflow="fold")
    for at in headlines:
        task, metric, unit = label_parts(results.columns[at])
        lines = (task, *metric.split("_"), unit, *column_chance(results, at).split(" "))
        heading = "\n".join(line for line in lines if line)
        table.add_column(heading, justify="right", overflow="fold")
    for row in results.asked_rows:
        model = Text(row.model, style="bold")
        if row.parent:
            model.append(f"\n← {row.parent}", style="not bold dim")
        table.add_row(model, *(_cell_console(row.cells[at]) for at in headlines))
    parts: list[RenderableType] = [table]
    parts.append(
        Text(
            "Below a score is its 95 % interval (≈ may hold less). Against the model it comes from:"
        )
    )
    parts.append(Text("  ▲ better   ▼ worse   ? cannot tell   – no value   △ ▽ secondary metric\n"))
    for at in headlines:
        parts += [Text(f"  {protocol}") for protocol in column_protocols(results, at)]
    for reason, where in missing_reasons(results, headlines).items():
        parts.append(Text(f"  – {reason}: {', '.join(where)}", style="yellow"))
    for note, where in verdict_notes(results, headlines).items():
        parts.append(Text(f"  ? {note}: {', '.join(where)}", style="dim"))
    if words := [*model_sentences(results), *score_notes(results)]:
        parts.append(Text("\n" + "\n".join(words)))
    if results.recipe.origin == "embedded":
        parts.append(Text(f"\n{GENERATED_NOTICE}", style="dim"))
    return Group(*parts)


def _cell_console(cell: Cell) -> Any:
    from rich.text import Text

    if cell.estimate is None:
        return Text("–", style="dim")
    scale, found = cell.column.scale, cell.estimate
    text = Text(format_number(found.value, scale))
    if (mark := verdict_mark(cell)) and cell.difference:
        styles = {"better": "green", "worse": "red"}
        text.append(f" {mark}", style=styles.get(cell.difference.verdict or "", "dim"))
    approximate = "≈" if is_approximate(cell.column, found) else ""
    text.append(f"\n{approximate}{_narrow_interval(found, scale)}", style="dim")
    return text


def _narrow_interval(estimate: Estimate, scale: float) -> str:
    """The confidence interval in a narrow column: "40.1–44.9", "71.9–100", "119–191"."""
    if estimate.low == estimate.high:
        return "no spread"
    low, high = (
        format_number(end, scale, 1000 if abs(end * scale) >= 99.95 else None).removesuffix(".0")
        for end in estimate[1:3]
    )
    return f"{low}–{high}" if estimate.low >= 0 else f"{low} to {high}"
