"""The frontier: what the models of a recipe cost, beside what they can.

Bytes and speeds come from the recipe's footprint task, what quantizing has changed from the runs
that quantized, and whether that made a model worse from the corrected verdicts of Table 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zephyr.report.ledger import Cell, Entry, Ledger, Row
from zephyr.report.sheets import (
    BLUE,
    GREY,
    VERMILION,
    Drawing,
    Panel,
    Point,
    drawing,
    legend,
    outer_labels,
    panels,
    short,
)
from zephyr.report.tables import label, number
from zephyr.stats.intervals import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Cost:
    """What a model costs: bytes and tokens a second by name; or why they are not known.

    `steps` are those of its quantization: what each has changed in all.
    """

    row: Row
    sizes: Mapping[str, Estimate]
    empty: str | None
    steps: tuple[Mapping[str, Any], ...]
    worse: tuple[str, ...]
    """The headline metrics in which it is worse than the model that it comes from."""


@dataclass(frozen=True)
class Frontier:
    """The costs of all models, how they were measured, and which model to ship of each family."""

    costs: tuple[Cost, ...]
    protocol: tuple[str, ...]
    advice: tuple[str, ...]


def frontier(ledger: Ledger) -> Frontier | None:
    """What the models cost; None where the recipe measures no footprint and quantizes nothing."""
    task = next((t for t in ledger.recipe.evaluate.tasks if t.is_footprint), None)
    entries = {
        row.model: ledger.entries.get(f"{row.model}/{task.key}" if task else "")
        for row in ledger.rows
    }
    costs = tuple(_cost(ledger, row, entries[row.model]) for row in ledger.rows)
    if not any(cost.sizes or cost.empty or cost.steps for cost in costs):
        return None
    protocol = dict.fromkeys(
        " · ".join(found["metrics"][0]["protocol"].split(" · ")[3:-2])
        for entry in entries.values()
        if entry is not None and entry.state == "finished"
        for found in [entry.run.read("artifact/scores.json")]
    )
    return Frontier(costs, tuple(protocol), tuple(_advice(ledger, costs)))


def _cost(ledger: Ledger, row: Row, entry: Entry | None) -> Cost:
    sizes: dict[str, Estimate] = {}
    if entry is not None and entry.state == "finished":
        for metric in entry.run.read("artifact/scores.json")["metrics"]:
            if metric["value"] is not None:
                values = (metric[key] for key in Estimate._fields)
                sizes[metric["name"]] = Estimate(*values)
    steps: tuple[Mapping[str, Any], ...] = ()
    if row.entry.kind == "quantize" and row.entry.state == "finished":
        steps = tuple(row.entry.run.read("artifact/divergence.json")["steps"])
    worse = [
        label(cell.column)
        for cell in (row.cells[at] for at in ledger.headlines)
        if cell.difference is not None and cell.difference.verdict == "worse"
    ]
    return Cost(row, sizes, entry.reason if entry else None, steps, tuple(worse))


def _advice(ledger: Ledger, costs: tuple[Cost, ...]) -> list[str]:
    """Of each model that others are quantized from, the smallest that is not called worse."""
    said = []
    by_name = {cost.row.model: cost for cost in costs}
    for origin in dict.fromkeys(c.row.parent for c in costs if c.row.entry.kind == "quantize"):
        assert origin is not None, "what is quantized comes from a model"
        whole = by_name[origin]
        small = [c for c in costs if c.row.parent == origin and c.row.entry.kind == "quantize"]
        known = [c for c in small if "disk" in c.sizes and _compared(ledger, c)]
        if "disk" not in whole.sizes or not known:
            continue
        smaller = [c for c in known if _disk(c) < _disk(whole)]
        said.append(_sentence(ledger, f"{len(known)} models made from {origin}", smaller, whole))
    return said


def _sentence(ledger: Ledger, among: str, smaller: list[Cost], whole: Cost) -> str:
    """Which of the smaller models to take; by the tasks alone where all lose in perplexity."""
    if good := [c for c in smaller if not c.worse]:
        best, where, price = min(good, key=_disk), "any headline metric", ""
    elif good := [c for c in smaller if not _worse_in_tasks(ledger, c)]:
        best = min(good, key=_disk)
        where = "any headline metric but perplexity"
        price = f", at {' and '.join(_dearer(ledger, best, whole))} of perplexity"
    else:
        return f"Each of the {among} that is smaller is told to be worse in some task."
    asked = sorted({cell.estimate.n for cell in _cells(ledger, best) if cell.estimate})
    counts = f"{asked[0]:,} to {asked[-1]:,}" if len(asked) > 1 else f"{asked[0]:,}"
    share = f"{_disk(best) / _disk(whole):.0%} of its bytes"
    return (
        f"The smallest of the {among} that is not told to be worse than it in {where} is "
        f"{best.row.model} ({best.row.done}): {share}{price}. "
        f"With {counts} items a metric, small losses can't be told."
    )


def _worse_in_tasks(ledger: Ledger, cost: Cost) -> bool:
    return any(
        cell.column.kind != "exp-mean" and cell.difference and cell.difference.verdict == "worse"
        for cell in _cells(ledger, cost)
    )


def _dearer(ledger: Ledger, cost: Cost, whole: Cost) -> list[str]:
    """By how much the perplexities of a model are above those of the whole one."""
    pairs = zip(_cells(ledger, cost), _cells(ledger, whole), strict=True)
    return [
        f"{ours.estimate.value / theirs.estimate.value - 1:+.1%}"
        for ours, theirs in pairs
        if ours.column.kind == "exp-mean" and ours.estimate and theirs.estimate
    ]


def _disk(cost: Cost) -> float:
    return cost.sizes["disk"].value


def _cells(ledger: Ledger, cost: Cost) -> list[Cell]:
    return [cost.row.cells[at] for at in ledger.headlines]


def _compared(ledger: Ledger, cost: Cost) -> bool:
    """Whether every headline metric has been compared with that of its parent."""
    return all(c.difference is not None and c.difference.verdict for c in _cells(ledger, cost))


# -- the figure -----------------------------------------------------------------------------------


def draw(ledger: Ledger, found: Frontier) -> Drawing | None:
    """Perplexities and shares of right answers against the bytes of each model's files."""
    shown = [cost for cost in found.costs if "disk" in cost.sizes]
    places = [at for at in ledger.headlines if _is_drawn(ledger, at, shown)]
    if len(shown) < 2 or not places:
        return None
    figure, axes = panels(len(places), share=False, height=2.6)
    points: list[Point] = []
    said = []
    for ax, at in zip(axes, places, strict=True):
        panel = Panel(ax, label(ledger.columns[at]), points)
        having = [(c, e) for c in shown if (e := c.row.cells[at].estimate) is not None]
        for cost, estimate in having:
            _point(panel, cost, cost.row.cells[at], estimate)
        ax.set_title("\n".join(panel.name.split(" ", 1)))
        _megabytes(ax)
        said.append(_said(ledger, at, having))
    legend(figure, *axes)
    outer_labels(figure, "", "megabytes of files (logarithmic)")
    return drawing(figure, "frontier", "What a byte is worth", said, points)


def _is_drawn(ledger: Ledger, at: int, shown: list[Cost]) -> bool:
    column = ledger.columns[at]
    some = any(cost.row.cells[at].estimate is not None for cost in shown)
    return some and column.kind in ("proportion", "exp-mean")


_STYLES = {
    "worse": (VERMILION, "v", "quantized, worse"),
    "quantized": (BLUE, "o", "quantized, not told to be worse"),
    "whole": (GREY, "s", "not quantized"),
}


def _point(panel: Panel, cost: Cost, cell: Cell, estimate: Estimate) -> None:
    kind = "whole"
    if cost.row.entry.kind == "quantize":
        worse = cell.difference is not None and cell.difference.verdict == "worse"
        kind = "worse" if worse else "quantized"
    colour, marker, name = _STYLES[kind]
    x = _disk(cost) / 1e6
    value, low, high = (each * cell.column.scale for each in estimate[:3])
    panel.axes.plot([x, x], [low, high], color=colour, linewidth=0.9, alpha=0.6)
    panel.axes.plot(
        [x], [value], color=colour, marker=marker, markersize=4.5, linestyle="none", label=name
    )
    panel.points.append(Point(panel.name, cost.row.model, x, value, low, high))


def _megabytes(ax: "Axes") -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    ax.set_xscale("log")
    low, high = ax.get_xlim()
    ticks = [t for e in range(-3, 7) for m in (1, 2, 5) if low <= (t := m * 10.0**e) <= high]
    if ticks:
        ax.set_xticks(ticks)
        ax.xaxis.set_minor_formatter(NullFormatter())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _said(ledger: Ledger, at: int, having: list[tuple[Cost, Estimate]]) -> str:
    column = ledger.columns[at]
    texts = [
        f"{short(cost.row.model)} {number(e.value, column.scale)} at {_disk(cost) / 1e6:.3g} MB"
        for cost, e in sorted(having, key=lambda pair: _disk(pair[0]))
    ]
    return f"{column.task} {column.metric}: {', '.join(texts)}."
