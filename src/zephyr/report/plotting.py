"""Plotting helpers (matplotlib): figures with panels, without global state, rendered to files."""

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
"""Colour-blind safe palette (Okabe and Ito 2008)."""

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
_MAX_COLUMNS = 3
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
    """One panel (axes) of a figure; all panels of a figure collect their data in `points`."""

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
    """A new figure with a grid of axes [rows, columns], without pyplot."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(columns, 2) * _WIDTH, rows * height + 0.3), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **share)


def new_panels(
    count: int, *, share: Any, height: float = _HEIGHT
) -> "tuple[Figure, Sequence[Axes]]":
    """A new figure with `count` panels, at most `_MAX_COLUMNS` side by side."""
    columns = min(count, _MAX_COLUMNS)
    figure, grid = new_figure(
        -(-count // columns), columns, height=height, sharey="all" if share == "y" else False
    )
    axes = list(grid.flat)
    for spare in axes[count:]:
        spare.remove()
    return figure, axes[:count]


def set_outer_labels(figure: "Figure", y: str, x: str) -> None:
    """Sets the shared y and x labels of a figure."""
    figure.supylabel(y, fontsize=8.5, color="#374151")
    figure.supxlabel(x, fontsize=8.5, color="#374151")


def set_side_labels(grid: NDArray[Any], units: Sequence[str]) -> None:
    """Sets the labels of a grid whose columns share the x axis, and whose rows share a unit."""
    for ax, unit in zip(grid[:, 0], units, strict=True):
        ax.set_ylabel(unit)
    for ax in grid[-1]:
        ax.set_xlabel("optimizer step")


def add_legend(figure: "Figure", *sources: "Axes") -> None:
    """Adds one legend for all axes, each label once."""
    named = {
        name: line
        for ax in sources
        for line, name in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    figure.legend(named.values(), named.keys(), loc="outside upper left", ncols=3)


def shorten_name(name: str) -> str:
    """Shortens a name to 24 characters in the middle; names mostly differ at their ends."""
    return name if len(name) <= 24 else f"{name[:12]}…{name[-11:]}"


def render_drawing(
    figure: "Figure", name: str, title: str, captions: Sequence[str], points: Sequence[Point] = ()
) -> Drawing:
    """Renders a figure to SVG and PNG, with its data as CSV."""
    svg, png = io.BytesIO(), io.BytesIO()
    figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    figure.set_layout_engine("none")  # keeps the layout computed for the SVG
    figure.savefig(png, format="png", dpi=160, metadata={"Software": None})
    return Drawing(
        name, title, " ".join(captions), svg.getvalue(), png.getvalue(), _points_csv(points)
    )


def _points_csv(points: Sequence[Point]) -> str:
    """The points as CSV, a line each; without interval columns if no point has one."""
    if not points:
        return ""
    width = 4 if all(point.low is None for point in points) else 6
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows([Point._fields[:width], *(point[:width] for point in points)])
    return out.getvalue()
