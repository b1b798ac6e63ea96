"""LaTeX results table of the headline metrics (needs the package booktabs)."""

from itertools import groupby

from zephyr.report.results import Cell, Results
from zephyr.report.tables import GENERATED_NOTICE, column_protocols, format_number, interval_text

_VERDICT_MARKS = {"better": "$^{+}$", "worse": "$^{-}$", "cannot tell": "$^{?}$"}
_SECONDARY_MARKS = {"better": "$^{(+)}$", "worse": "$^{(-)}$", "cannot tell": "$^{?}$"}
_ESCAPES = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        **{mark: f"\\{mark}" for mark in "&%$#_{}"},
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "\n": " ",
        "−": "$-$",
        "↑": r"$\uparrow$",
        "↓": r"$\downarrow$",
        "←": r"$\leftarrow$",
        "·": r"$\cdot$",
        "β": r"$\beta$",
        "≈": r"$\approx$",
    }
)
_DIRECTION_ARROWS = {"higher": " ↑", "lower": " ↓", None: ""}


def table_latex(results: Results) -> str:
    """Renders the LaTeX table: models as rows, scores with intervals, protocols below."""
    columns = [results.columns[at] for at in results.headline_indices]
    tasks = [(task, len(list(group))) for task, group in groupby(column.task for column in columns)]
    metrics = [
        column.metric.replace("_", " ")
        + (" %" if column.scale == 100 else "")
        + _DIRECTION_ARROWS[column.better]
        for column in columns
    ]
    spans = " & ".join(rf"\multicolumn{{{n}}}{{c}}{{{escape_latex(task)}}}" for task, n in tasks)
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_table_caption(results)}}}",
        rf"\begin{{tabular}}{{l{'r' * len(columns)}}}",
        r"\toprule",
        *([rf" & {spans} \\", _task_rules([n for _, n in tasks])] if columns else []),
        _table_row(["Model", *map(escape_latex, metrics)]),
        r"\midrule",
    ]
    for at, row in enumerate(results.asked_rows):
        cells = [row.cells[place] for place in results.headline_indices]
        lines += [r"\addlinespace"] if at else []
        lines.append(_table_row([escape_latex(row.model), *map(_value_text, cells)]))
        parent = rf"\footnotesize from {escape_latex(row.parent)}" if row.parent else ""
        lines.append(_table_row([parent, *map(_interval_text, cells)]))
    lines += [r"\bottomrule", r"\end{tabular}", r"\par\raggedright\footnotesize"]
    for column, at in zip(columns, results.headline_indices, strict=True):
        name = f"{column.task} {column.metric}".strip()
        lines += [
            rf"{escape_latex(f'{name}: {said}')}\par" for said in column_protocols(results, at)
        ]
    return "\n".join([*lines, r"\end{table}", ""])


def escape_latex(text: str) -> str:
    """Escapes special characters of LaTeX."""
    return text.translate(_ESCAPES)


def _table_caption(results: Results) -> str:
    caption = (
        f"{escape_latex(results.recipe.name)}: scores with 95\\,\\% intervals. Against the "
        "model that it "
        f"comes from, on the same items, a model is better ({_VERDICT_MARKS['better']}) or worse "
        f"({_VERDICT_MARKS['worse']}), or the items cannot tell "
        f"({_VERDICT_MARKS['cannot tell']}); primary metrics corrected together (Holm), marks "
        "of secondary ones in brackets, by their own p-value. $\\approx$ of few items: may hold "
        "less than 95\\,\\%. -- no value."
    )
    return (
        f"{caption} {escape_latex(GENERATED_NOTICE)}"
        if results.recipe.origin == "embedded"
        else caption
    )


def _task_rules(spans: list[int]) -> str:
    """A `\\cmidrule` under each task, over its metrics."""
    ends = [1 + sum(spans[: at + 1]) for at in range(len(spans))]
    return " ".join(
        rf"\cmidrule(lr){{{end - span + 1}-{end}}}" for span, end in zip(spans, ends, strict=True)
    )


def _table_row(cells: list[str]) -> str:
    return rf"{' & '.join(cells)} \\"


def _value_text(cell: Cell) -> str:
    if cell.estimate is None:
        return "--"
    difference = cell.difference
    marks = _VERDICT_MARKS if cell.column.primary else _SECONDARY_MARKS
    mark = marks[difference.verdict] if difference and difference.verdict else ""
    return escape_latex(format_number(cell.estimate.value, cell.column.scale)) + mark


def _interval_text(cell: Cell) -> str:
    """The interval in braces, so that LaTeX does not read `\\\\[…]` as a length."""
    if cell.estimate is None:
        return ""
    return rf"\footnotesize {{{escape_latex(interval_text(cell.column, cell.estimate))}}}"
