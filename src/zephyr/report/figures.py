"""Figures of a report (matplotlib): training curves, scores with intervals, size/quality.

The same runs give the same bytes. Each figure has a text alternative (alt) with its numbers.
"""

from zephyr.report import frontier
from zephyr.report.curves import (
    draw_alignment,
    draw_learning_rates,
    draw_loss,
    draw_sample_generations,
    read_series,
)
from zephyr.report.plotting import (
    BLUE,
    GREEN,
    GREY,
    STYLE,
    VERMILION,
    Drawing,
    Panel,
    Point,
    new_panels,
    render_drawing,
    shorten_name,
)
from zephyr.report.results import Cell, Results
from zephyr.report.tables import column_label, format_interval, format_number


def draw_figures(results: Results) -> list[Drawing]:
    """Draws every figure for which there is data."""
    import matplotlib as mpl

    curves = [(row.model, row.node) for row in results.rows if row.node.run.metrics]
    by_kind = {
        kind: [curve for curve in curves if curve[1].kind == kind]
        for kind in ("pretrain", "tune", "align")
    }
    drawings = []
    with mpl.rc_context(STYLE):
        if any(row.cells[at].estimate for row in results.rows for at in results.headline_indices):
            drawings.append(_draw_scores(results))
        if (costs := frontier.read_frontier(results)) and (
            frontier_drawing := frontier.draw_frontier(results, costs)
        ):
            drawings.append(frontier_drawing)
        for kind, title in (("pretrain", "Pretraining loss"), ("tune", "Fine-tuning loss")):
            if by_kind[kind]:
                drawings.append(draw_loss(f"loss-{kind}", title, by_kind[kind]))
        if by_kind["align"]:
            drawings.append(draw_alignment(by_kind["align"]))
        with_sample_generations = [
            c for c in curves if len(read_series(c[1], "canary", "length").steps)
        ]
        if with_sample_generations:
            drawings.append(draw_sample_generations(with_sample_generations))
        if curves:
            drawings.append(draw_learning_rates(curves))
    return drawings


_VERDICT_MARKERS = {
    "better": ("^", GREEN, "better than the model it comes from"),
    "worse": ("v", VERMILION, "worse"),
    "cannot tell": ("o", BLUE, "cannot tell"),
    None: ("s", GREY, "not compared"),
}


def _draw_scores(results: Results) -> Drawing:
    """Forest plot: a panel for each headline metric, a dot with its interval for each model."""
    from matplotlib.lines import Line2D

    indices = [
        at
        for at in results.headline_indices
        if any(row.cells[at].estimate is not None for row in results.rows)
    ]
    count, models = len(indices), [shorten_name(row.model) for row in results.asked_rows]
    height = 0.75 + 0.21 * len(models)
    figure, axes = new_panels(count, share="y", height=height)
    captions, used_verdicts, points = [], set(), list[Point]()
    for ax, at in zip(axes, indices, strict=True):
        panel = Panel(ax, column_label(results.columns[at]), points)
        for y, row in enumerate(results.asked_rows):
            used_verdicts.add(_plot_score(panel, row.model, y, row.cells[at]))
        ax.set_title("\n".join(column_label(results.columns[at]).split(" ", 1)))
        ax.set_yticks(range(len(models)), models)
        ax.set_ylim(len(models) - 0.5, -0.5)
        ax.grid(visible=False, axis="y")
        captions.append(_score_range_text(results, at))
    handles = [
        Line2D([], [], marker=marker, color=colour, linestyle="none", label=name)
        for key, (marker, colour, name) in _VERDICT_MARKERS.items()
        if key in used_verdicts
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=4)
    return render_drawing(figure, "scores", "Headline scores with 95 % intervals", captions, points)


def _plot_score(panel: Panel, model: str, y: int, cell: Cell) -> str | None:
    """Plots one score with its confidence interval; returns the verdict of its marker."""
    ax, verdict = panel.axes, cell.difference.verdict if cell.difference else None
    if (found := cell.estimate) is None:
        ax.text(0.02, y, "no value", transform=ax.get_yaxis_transform(), va="center", color=GREY)
        return verdict
    marker, colour, _ = _VERDICT_MARKERS[verdict]
    value, low, high = (each * cell.column.scale for each in found[:3])
    ax.plot([low, high], [y, y], color=colour, linewidth=1.4)
    ax.plot([value], [y], color=colour, marker=marker, markersize=5)
    panel.points.append(Point(panel.name, model, value, y, low, high))
    return verdict


def _score_range_text(results: Results, at: int) -> str:
    """The lowest and the highest score of a column, in words."""
    column = results.columns[at]
    unit = " %" if column.scale == 100 else ""
    found = [(e.value, row.model, e) for row in results.rows if (e := row.cells[at].estimate)]
    texts = [
        f"{format_number(e.value, column.scale)}{unit} {format_interval(e, column.scale)} ({model})"
        for _, model, e in ((min(found), max(found)) if len(found) > 1 else found)
    ]
    return f"{column.task} {column.metric}: {' to '.join(texts)}."
