"""Size/quality frontier (Pareto): the size and speed of each model against its scores.

Sizes and throughput come from the recipe's footprint task, the divergence from the quantization
runs, and whether a model is worse from the Holm-corrected verdicts of the results table.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zephyr.report.node_status import NodeStatus
from zephyr.report.plotting import (
    BLUE,
    GREY,
    VERMILION,
    Drawing,
    Panel,
    Point,
    add_legend,
    new_panels,
    render_drawing,
    set_outer_labels,
    shorten_name,
)
from zephyr.report.results import Cell, ModelRow, Results
from zephyr.report.tables import column_label, format_number
from zephyr.stats.intervals import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class ModelCost:
    """The cost of a model: bytes and tokens per second by name; or why they are unknown.

    `quantization_steps` has the divergence after each quantization step.
    """

    row: ModelRow
    footprint: Mapping[str, Estimate]
    missing_reason: str | None
    quantization_steps: tuple[Mapping[str, Any], ...]
    worse_metrics: tuple[str, ...]
    """The primary metrics in which it is significantly worse than its parent."""


@dataclass(frozen=True)
class Frontier:
    """The costs of all models, their protocol, and the recommended model of each family."""

    costs: tuple[ModelCost, ...]
    protocols: tuple[str, ...]
    recommendations: tuple[str, ...]


def read_frontier(results: Results) -> Frontier | None:
    """Reads the costs of all models; None without a footprint task and quantization."""
    task = next((t for t in results.recipe.evaluate.tasks if t.is_footprint), None)
    nodes = {
        row.model: results.nodes.get(f"{row.model}/{task.key}" if task else "")
        for row in results.rows
    }
    costs = tuple(_model_cost(results, row, nodes[row.model]) for row in results.rows)
    if not any(cost.footprint or cost.missing_reason or cost.quantization_steps for cost in costs):
        return None
    protocols = dict.fromkeys(
        " · ".join(found["metrics"][0]["protocol"].split(" · ")[3:-2])
        for node in nodes.values()
        if node is not None and node.state == "finished"
        for found in [node.run.read("artifact/scores.json")]
    )
    return Frontier(costs, tuple(protocols), tuple(_recommendations(results, costs)))


def _model_cost(results: Results, row: ModelRow, node: NodeStatus | None) -> ModelCost:
    footprint: dict[str, Estimate] = {}
    if node is not None and node.state == "finished":
        for metric in node.run.read("artifact/scores.json")["metrics"]:
            if metric["value"] is not None:
                values = (metric[key] for key in Estimate._fields)
                footprint[metric["name"]] = Estimate(*values)
    steps: tuple[Mapping[str, Any], ...] = ()
    if row.node.kind == "quantize" and row.node.state == "finished":
        steps = tuple(row.node.run.read("artifact/divergence.json")["steps"])
    worse_metrics = [
        column_label(cell.column)
        for cell in (row.cells[at] for at in results.primary_indices)
        if cell.difference is not None and cell.difference.verdict == "worse"
    ]
    return ModelCost(row, footprint, node.reason if node else None, steps, tuple(worse_metrics))


def _recommendations(results: Results, costs: tuple[ModelCost, ...]) -> list[str]:
    """Recommends, for each base model, the smallest quantized one not significantly worse."""
    sentences = []
    by_name = {cost.row.model: cost for cost in costs}
    for parent in dict.fromkeys(c.row.parent for c in costs if c.row.node.kind == "quantize"):
        assert parent is not None, "what is quantized comes from a model"
        unquantized = by_name[parent]
        quantized = [c for c in costs if c.row.parent == parent and c.row.node.kind == "quantize"]
        measured = [c for c in quantized if "disk" in c.footprint and _is_compared(results, c)]
        if "disk" not in unquantized.footprint or not measured:
            continue
        smaller = [c for c in measured if _disk_bytes(c) < _disk_bytes(unquantized)]
        sentences.append(
            _recommendation_text(
                results, f"{len(measured)} models made from {parent}", smaller, unquantized
            )
        )
    return sentences


def _recommendation_text(
    results: Results, group: str, smaller: list[ModelCost], unquantized: ModelCost
) -> str:
    """The recommended smaller model; by the tasks alone if all are worse in perplexity."""
    if good := [c for c in smaller if not c.worse_metrics]:
        best, where, perplexity_note = min(good, key=_disk_bytes), "any primary metric", ""
    elif good := [c for c in smaller if not _is_worse_in_tasks(results, c)]:
        best = min(good, key=_disk_bytes)
        where = "any primary metric but perplexity"
        perplexity_note = (
            f", at {' and '.join(_perplexity_increases(results, best, unquantized))} of perplexity"
        )
    else:
        return f"Each of the {group} that is smaller is told to be worse in some task."
    item_counts = sorted(
        {cell.estimate.n for cell in _primary_cells(results, best) if cell.estimate}
    )
    counts = (
        f"{item_counts[0]:,} to {item_counts[-1]:,}"
        if len(item_counts) > 1
        else f"{item_counts[0]:,}"
    )
    share = f"{_disk_bytes(best) / _disk_bytes(unquantized):.0%} of its bytes"
    return (
        f"The smallest of the {group} that is not told to be worse than it in {where} is "
        f"{best.row.model} ({best.row.derivation}): {share}{perplexity_note}. "
        f"With {counts} items a metric, small losses can't be told."
    )


def _is_worse_in_tasks(results: Results, cost: ModelCost) -> bool:
    return any(
        cell.column.kind != "exp-mean" and cell.difference and cell.difference.verdict == "worse"
        for cell in _primary_cells(results, cost)
    )


def _perplexity_increases(results: Results, cost: ModelCost, unquantized: ModelCost) -> list[str]:
    """The relative increases in perplexity over the unquantized model."""
    pairs = zip(_primary_cells(results, cost), _primary_cells(results, unquantized), strict=True)
    return [
        f"{cell.estimate.value / unquantized_cell.estimate.value - 1:+.1%}"
        for cell, unquantized_cell in pairs
        if cell.column.kind == "exp-mean" and cell.estimate and unquantized_cell.estimate
    ]


def _disk_bytes(cost: ModelCost) -> float:
    return cost.footprint["disk"].value


def _primary_cells(results: Results, cost: ModelCost) -> list[Cell]:
    return [cost.row.cells[at] for at in results.primary_indices]


def _is_compared(results: Results, cost: ModelCost) -> bool:
    """Whether every primary metric of a model has been compared with its parent."""
    return all(
        c.difference is not None and c.difference.verdict for c in _primary_cells(results, cost)
    )


# -- figure ---------------------------------------------------------------------------------------


def draw_frontier(results: Results, found: Frontier) -> Drawing | None:
    """Plots perplexities and accuracies against the file size of each model."""
    shown = [cost for cost in found.costs if "disk" in cost.footprint]
    indices = [at for at in results.headline_indices if _is_plottable(results, at, shown)]
    if len(shown) < 2 or not indices:
        return None
    figure, axes = new_panels(len(indices), share=False, height=2.6)
    points: list[Point] = []
    captions = []
    for ax, at in zip(axes, indices, strict=True):
        panel = Panel(ax, column_label(results.columns[at]), points)
        with_estimate = [(c, e) for c in shown if (e := c.row.cells[at].estimate) is not None]
        for cost, estimate in with_estimate:
            _plot_model(panel, cost, cost.row.cells[at], estimate)
        ax.set_title("\n".join(panel.name.split(" ", 1)))
        _use_megabyte_axis(ax)
        captions.append(_column_caption(results, at, with_estimate))
    add_legend(figure, *axes)
    set_outer_labels(figure, "", "megabytes of files (logarithmic)")
    return render_drawing(figure, "frontier", "What a byte is worth", captions, points)


def _is_plottable(results: Results, at: int, shown: list[ModelCost]) -> bool:
    column = results.columns[at]
    some = any(cost.row.cells[at].estimate is not None for cost in shown)
    return some and column.kind in ("proportion", "exp-mean")


_STYLES = {
    "worse": (VERMILION, "v", "quantized, worse"),
    "quantized": (BLUE, "o", "quantized, not told to be worse"),
    "whole": (GREY, "s", "not quantized"),
}


def _plot_model(panel: Panel, cost: ModelCost, cell: Cell, estimate: Estimate) -> None:
    kind = "whole"
    if cost.row.node.kind == "quantize":
        worse = cell.difference is not None and cell.difference.verdict == "worse"
        kind = "worse" if worse else "quantized"
    colour, marker, name = _STYLES[kind]
    x = _disk_bytes(cost) / 1e6
    value, low, high = (each * cell.column.scale for each in estimate[:3])
    panel.axes.plot([x, x], [low, high], color=colour, linewidth=0.9, alpha=0.6)
    panel.axes.plot(
        [x], [value], color=colour, marker=marker, markersize=4.5, linestyle="none", label=name
    )
    panel.points.append(Point(panel.name, cost.row.model, x, value, low, high))


def _use_megabyte_axis(ax: "Axes") -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    ax.set_xscale("log")
    low, high = ax.get_xlim()
    ticks = [t for e in range(-3, 7) for m in (1, 2, 5) if low <= (t := m * 10.0**e) <= high]
    if ticks:
        ax.set_xticks(ticks)
        ax.xaxis.set_minor_formatter(NullFormatter())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _column_caption(
    results: Results, at: int, with_estimate: list[tuple[ModelCost, Estimate]]
) -> str:
    column = results.columns[at]
    texts = [
        f"{shorten_name(cost.row.model)} {format_number(e.value, column.scale)} at "
        f"{_disk_bytes(cost) / 1e6:.3g} MB"
        for cost, e in sorted(with_estimate, key=lambda pair: _disk_bytes(pair[0]))
    ]
    return f"{column.task} {column.metric}: {', '.join(texts)}."
