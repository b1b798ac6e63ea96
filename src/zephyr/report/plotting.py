"""Plotting: figures with panels, without matplotlib's global state, rendered to files."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, VERMILION, GREEN, GREY = "#0072b2", "#e69f00", "#d55e00", "#009e73", "#6b7280"
"""Colours that people with any kind of colour vision tell apart (Okabe and Ito 2008)."""

STYLE: dict[Any, Any] = {
    "svg.hashsalt": "zephyr",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9ca3af",
    "axes.labelcolor": "#374151",
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e5e7eb",
    "grid.linewidth": 0.6,
    "xtick.color": "#4b5563",
    "ytick.color": "#4b5563",
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 4,
}
_COLUMNS = 3
_WIDTH, _HEIGHT = 3.0, 2.2
"""Inches of one panel."""


@dataclass(frozen=True)
class Drawing:
    """A rendered figure as SVG and PNG, with title, text alternative, and its numbers as CSV."""

    name: str
    title: str
    alt: str
    svg: bytes
    png: bytes
    csv: str = ""


class Point(NamedTuple):
    """A data point of a panel; `low` and `high` are the ends of its confidence interval."""

    panel: str
    series: str
    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Panel:
    """One plot of a figure; all panels of a figure keep what they show in the same `points`."""

    axes: "Axes"
    name: str
    points: list[Point] = field(default_factory=list)

    def plot(
        self, series: str, x: NDArray[np.float64], y: NDArray[np.float64], **style: Any
    ) -> None:
        self.axes.plot(x, y, **style)
        pairs = zip(x.tolist(), y.tolist(), strict=True)
        self.points.extend(Point(self.name, series, *pair) for pair in pairs)


def new_figure(
    rows: int, columns: int, *, height: float = _HEIGHT, **share: Any
) -> "tuple[Figure, NDArray[Any]]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(columns, 2) * _WIDTH, rows * height + 0.3), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **share)


def new_panels(
    count: int, *, share: Any, height: float = _HEIGHT
) -> "tuple[Figure, Sequence[Axes]]":
    """As many panels as asked, at most `_COLUMNS` side by side."""
    columns = min(count, _COLUMNS)
    figure, grid = new_figure(
        -(-count // columns), columns, height=height, sharey="all" if share == "y" else False
    )
    axes = list(grid.flat)
    for spare in axes[count:]:
        spare.remove()
    return figure, axes[:count]


def set_outer_labels(figure: "Figure", y: str, x: str) -> None:
    figure.supylabel(y, fontsize=8.5, color="#374151")
    figure.supxlabel(x, fontsize=8.5, color="#374151")


def set_side_labels(grid: NDArray[Any], units: Sequence[str]) -> None:
    """Labels of a grid whose columns share the steps, and whose rows share a unit."""
    for ax, unit in zip(grid[:, 0], units, strict=True):
        ax.set_ylabel(unit)
    for ax in grid[-1]:
        ax.set_xlabel("optimizer step")


def add_legend(figure: "Figure", *sources: "Axes") -> None:
    named = {
        name: line
        for ax in sources
        for line, name in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    figure.legend(named.values(), named.keys(), loc="outside upper left", ncols=3)


def shorten_name(name: str) -> str:
    """A name of at most 24 letters; names mostly differ at their ends."""
    return name if len(name) <= 24 else f"{name[:12]}…{name[-11:]}"


def render_drawing(
    figure: "Figure", name: str, title: str, captions: Sequence[str], points: Sequence[Point] = ()
) -> Drawing:
    svg, png = io.BytesIO(), io.BytesIO()
    figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    figure.set_layout_engine("none")  # the layout stays as it was found
    figure.savefig(png, format="png", dpi=160, metadata={"Software": None})
    return Drawing(
        name, title, " ".join(captions), svg.getvalue(), png.getvalue(), _points_csv(points)
    )


def _points_csv(points: Sequence[Point]) -> str:
    """A line for each point; without the interval where no point has one."""
    if not points:
        return ""
    width = 4 if all(point.low is None for point in points) else 6
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows([Point._fields[:width], *(point[:width] for point in points)])
    return out.getvalue()
