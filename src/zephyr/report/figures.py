"""Figures: the curves of a recipe's trainings, and its scores with their intervals.

The same runs give the same bytes. Each figure has a text alternative that says what it shows, in
numbers.
"""

from zephyr.report import frontier
from zephyr.report.curves import alignment, canaries, losses, rates, series
from zephyr.report.ledger import Cell, Ledger
from zephyr.report.sheets import (
    BLUE,
    GREEN,
    GREY,
    STYLE,
    VERMILION,
    Drawing,
    Panel,
    Point,
    drawing,
    panels,
    short,
)
from zephyr.report.tables import interval, label, number


def draw_all(ledger: Ledger) -> list[Drawing]:
    """Every figure for which there is something to show."""
    import matplotlib as mpl

    curves = [(row.model, row.entry) for row in ledger.rows if row.entry.run.metrics]
    by_kind = {
        kind: [curve for curve in curves if curve[1].kind == kind]
        for kind in ("pretrain", "tune", "align")
    }
    drawings = []
    with mpl.rc_context(STYLE):
        if any(row.cells[at].estimate for row in ledger.rows for at in ledger.headlines):
            drawings.append(_scores(ledger))
        if (costs := frontier.frontier(ledger)) and (drawn := frontier.draw(ledger, costs)):
            drawings.append(drawn)
        for kind, title in (("pretrain", "Pretraining loss"), ("tune", "Fine-tuning loss")):
            if by_kind[kind]:
                drawings.append(losses(f"loss-{kind}", title, by_kind[kind]))
        if by_kind["align"]:
            drawings.append(alignment(by_kind["align"]))
        asked = [c for c in curves if len(series(c[1], "canary", "length").steps)]
        if asked:
            drawings.append(canaries(asked))
        if curves:
            drawings.append(rates(curves))
    return drawings


_DOTS = {
    "better": ("^", GREEN, "better than the model it comes from"),
    "worse": ("v", VERMILION, "worse"),
    "cannot tell": ("o", BLUE, "cannot tell"),
    None: ("s", GREY, "not compared"),
}


def _scores(ledger: Ledger) -> Drawing:
    """A panel for each headline metric: a dot and a whisker for each model."""
    from matplotlib.lines import Line2D

    shown = [
        at
        for at in ledger.headlines
        if any(row.cells[at].estimate is not None for row in ledger.rows)
    ]
    count, models = len(shown), [short(row.model) for row in ledger.rows]
    height = 0.75 + 0.21 * len(models)
    figure, axes = panels(count, share="y", height=height)
    said, used, points = [], set(), list[Point]()
    for ax, at in zip(axes, shown, strict=True):
        panel = Panel(ax, label(ledger.columns[at]), points)
        for y, row in enumerate(ledger.rows):
            used.add(_dot(panel, row.model, y, row.cells[at]))
        ax.set_title("\n".join(label(ledger.columns[at]).split(" ", 1)))
        ax.set_yticks(range(len(models)), models)
        ax.set_ylim(len(models) - 0.5, -0.5)
        ax.grid(visible=False, axis="y")
        said.append(_range(ledger, at))
    handles = [
        Line2D([], [], marker=marker, color=colour, linestyle="none", label=name)
        for key, (marker, colour, name) in _DOTS.items()
        if key in used
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=4)
    return drawing(figure, "scores", "Headline scores with 95 % intervals", said, points)


def _dot(panel: Panel, model: str, y: int, cell: Cell) -> str | None:
    """Draws one score; gives the verdict that its marker stands for."""
    ax, verdict = panel.axes, cell.difference.verdict if cell.difference else None
    if (found := cell.estimate) is None:
        ax.text(0.02, y, "no value", transform=ax.get_yaxis_transform(), va="center", color=GREY)
        return verdict
    marker, colour, _ = _DOTS[verdict]
    value, low, high = (each * cell.column.scale for each in found[:3])
    ax.plot([low, high], [y, y], color=colour, linewidth=1.4)
    ax.plot([value], [y], color=colour, marker=marker, markersize=5)
    panel.points.append(Point(panel.name, model, value, y, low, high))
    return verdict


def _range(ledger: Ledger, at: int) -> str:
    """The lowest and the highest score of a column, in words."""
    column = ledger.columns[at]
    unit = " %" if column.scale == 100 else ""
    found = [(e.value, row.model, e) for row in ledger.rows if (e := row.cells[at].estimate)]
    texts = [
        f"{number(e.value, column.scale)}{unit} {interval(e, column.scale)} ({model})"
        for _, model, e in ((min(found), max(found)) if len(found) > 1 else found)
    ]
    return f"{column.task} {column.metric}: {' to '.join(texts)}."
