"""Results table as Markdown: a value with its interval and a mark in each cell, protocols below."""

from collections.abc import Iterable, Sequence

from zephyr.report.plain_words import model_sentences, score_notes
from zephyr.report.results import Cell, Results
from zephyr.report.tables import (
    GENERATED_NOTICE,
    column_chance,
    column_label,
    column_protocols,
    format_number,
    interval_text,
    missing_reasons,
    verdict_mark,
)


def table_markdown(results: Results) -> str:
    """The results table as Markdown: primary and secondary headline metrics, and protocols."""
    parts = [f"# {results.recipe.name}: scores of {len(results.rows)} models"]
    if results.recipe.origin == "embedded":
        parts.append(GENERATED_NOTICE)
    primary = results.primary_indices
    secondary = [at for at in results.headline_indices if at not in primary]
    for heading, places in (("Primary metrics", primary), ("Secondary metrics", secondary)):
        if places:
            parts += [f"## {heading}", _scores_markdown(results, places)]
    parts.append(MARKS_LEGEND)
    if words := [*model_sentences(results), *score_notes(results)]:
        lines = [f"- {sentence}" for sentence in words]
        parts += ["## In words", "\n".join(map(_escape_table_cell, lines))]
    if (published := results.recipe.published) is not None:
        parts.append(f"Published: {published.source}. {published.note or ''}".strip())
    shown = [*primary, *secondary]
    if reasons := missing_reasons(results, shown):
        lines = [f"- {reason}: {', '.join(where)}" for reason, where in reasons.items()]
        parts += ["## No value (–)", "\n".join(map(_escape_table_cell, lines))]
    parts += ["## Models", _derivations_markdown(results)]
    parts += ["## Protocols", _protocols_markdown(results, shown)]
    parts.append(
        "Differences with their intervals and p-values, and all other metrics, are in `table.csv`; "
        "those and the scores of groups are in `table.json` and `report.html`."
    )
    return "\n\n".join(parts) + "\n"


MARKS_LEGEND = (
    "A cell is a value with its 95 % interval. Against the model that a model comes from, on the "
    "same items: ▲ better, ▼ worse, ? cannot tell, all primary metrics corrected together (Holm); "
    "△ ▽ in a secondary metric, by its own p-value. ≈ of few items: may hold less than 95 %."
)


def _scores_markdown(results: Results, places: Sequence[int]) -> str:
    """A Markdown table with a row for each model, and a column for each metric."""
    heads = [
        f"{column_label(results.columns[at])} {f'({chance})' if chance else ''}".strip()
        for at in places
        for chance in [column_chance(results, at)]
    ]
    lines = [
        [row.model, *(_cell_markdown(row.cells[at]) for at in places)] for row in results.asked_rows
    ]
    return _grid_markdown(["model", *heads], lines)


def _cell_markdown(cell: Cell) -> str:
    published = "" if cell.published is None else f"(published {cell.published:g})"
    if cell.estimate is None:
        return f"– {published}".strip()
    value = format_number(cell.estimate.value, cell.column.scale)
    note = cell.difference.note if cell.difference else None
    parts = (value, interval_text(cell.column, cell.estimate), verdict_mark(cell), note, published)
    return " ".join(part for part in parts if part)


def _derivations_markdown(results: Results) -> str:
    lines = [
        f"- {row.model}" + (f", from {row.parent}" if row.parent else "") + f": {row.derivation}"
        for row in results.rows
    ]
    return "\n".join(map(_escape_table_cell, lines))


def _protocols_markdown(results: Results, places: Sequence[int]) -> str:
    lines = [
        f"- {_escape_table_cell(column_label(results.columns[at]))}: {_escape_table_cell(protocol)}"
        for at in places
        for protocol in column_protocols(results, at)
    ]
    return "\n".join(lines) or "Nothing has been measured yet."


def _grid_markdown(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table whose columns are as wide as their cells, to be read as it stands."""
    rows = [[_escape_table_cell(cell) for cell in line] for line in (heads, *lines)]
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    padded = [
        [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]
        for row in rows
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in (padded[0], rule, *padded[1:]))


def _escape_table_cell(text: str) -> str:
    """Escapes Markdown, so that a text stays in its table cell."""
    marks = {"\\": "\\\\", "|": "\\|", "<": "&lt;", ">": "&gt;", "`": "\\`", "*": "\\*"}
    return " ".join("".join(marks.get(c, c) for c in text).split())
