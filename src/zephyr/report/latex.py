"""The headline table in LaTeX, for a document that loads booktabs."""

from itertools import groupby

from zephyr.report.ledger import Cell, Ledger
from zephyr.report.tables import GENERATED, interval, number, protocols_of

_MARKS = {"better": "$^{+}$", "worse": "$^{-}$", "cannot tell": "$^{?}$"}
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
    }
)
_SIDES = {"higher": " ↑", "lower": " ↓", None: ""}


def table_latex(ledger: Ledger) -> str:
    """Models as rows, each with its values and, beneath, their intervals; protocols under all."""
    columns = [ledger.columns[at] for at in ledger.headlines]
    tasks = [(task, len(list(group))) for task, group in groupby(column.task for column in columns)]
    metrics = [
        column.metric.replace("_", " ")
        + (" %" if column.scale == 100 else "")
        + _SIDES[column.better]
        for column in columns
    ]
    spans = " & ".join(rf"\multicolumn{{{n}}}{{c}}{{{escaped(task)}}}" for task, n in tasks)
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_caption(ledger)}}}",
        rf"\begin{{tabular}}{{l{'r' * len(columns)}}}",
        r"\toprule",
        *([rf" & {spans} \\", _rules([n for _, n in tasks])] if columns else []),
        _line(["Model", *map(escaped, metrics)]),
        r"\midrule",
    ]
    for at, row in enumerate(ledger.rows):
        cells = [row.cells[place] for place in ledger.headlines]
        lines += [r"\addlinespace"] if at else []
        lines.append(_line([escaped(row.model), *map(_value, cells)]))
        origin = rf"\footnotesize from {escaped(row.parent)}" if row.parent else ""
        lines.append(_line([origin, *map(_interval, cells)]))
    lines += [r"\bottomrule", r"\end{tabular}", r"\par\raggedright\footnotesize"]
    for column, at in zip(columns, ledger.headlines, strict=True):
        name = f"{column.task} {column.metric}".strip()
        lines += [rf"{escaped(f'{name}: {said}')}\par" for said in protocols_of(ledger, at)]
    return "\n".join([*lines, r"\end{table}", ""])


def escaped(text: str) -> str:
    """Text that LaTeX prints as it stands."""
    return text.translate(_ESCAPES)


def _caption(ledger: Ledger) -> str:
    said = (
        f"{escaped(ledger.recipe.name)}: scores with 95\\,\\% intervals. Against the model that it "
        f"comes from, on the same items, a model is better ({_MARKS['better']}) or worse "
        f"({_MARKS['worse']}), or the items cannot tell ({_MARKS['cannot tell']}); corrected for "
        "all comparisons of the table (Holm). -- no value."
    )
    return f"{said} {escaped(GENERATED)}" if ledger.recipe.origin == "embedded" else said


def _rules(spans: list[int]) -> str:
    """A rule under each task, over its metrics."""
    ends = [1 + sum(spans[: at + 1]) for at in range(len(spans))]
    return " ".join(
        rf"\cmidrule(lr){{{end - span + 1}-{end}}}" for span, end in zip(spans, ends, strict=True)
    )


def _line(cells: list[str]) -> str:
    return rf"{' & '.join(cells)} \\"


def _value(cell: Cell) -> str:
    if cell.estimate is None:
        return "--"
    gap = cell.difference
    mark = _MARKS[gap.verdict] if gap and gap.verdict else ""
    return escaped(number(cell.estimate.value, cell.column.scale)) + mark


def _interval(cell: Cell) -> str:
    """Braces keep the bracket from being read as the length of `\\\\[…]`."""
    if cell.estimate is None:
        return ""
    return rf"\footnotesize {{{escaped(interval(cell.estimate, cell.column.scale))}}}"
