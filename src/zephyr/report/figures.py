"""Figures: the curves of a recipe's trainings, and its scores with their intervals.

Each figure is drawn on its own, without matplotlib's global state; the same runs give the same
bytes. Each has a text alternative that says what it shows, in numbers.
"""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from zephyr.report.ledger import Cell, Entry, Ledger
from zephyr.report.tables import interval, label, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, VERMILION, GREEN, GREY = "#0072b2", "#e69f00", "#d55e00", "#009e73", "#6b7280"
"""Colours that people with any kind of colour vision tell apart (Okabe and Ito 2008)."""

_STYLE: dict[Any, Any] = {
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
    """A figure in two formats, with a title and what it shows in words."""

    name: str
    title: str
    alt: str
    svg: bytes
    png: bytes


class Series(NamedTuple):
    """Values over optimizer steps; what is not a finite number is left out."""

    steps: NDArray[np.float64]
    values: NDArray[np.float64]


def draw_all(ledger: Ledger) -> list[Drawing]:
    """Every figure for which there is something to show."""
    import matplotlib as mpl

    curves = [(row.model, row.entry) for row in ledger.rows if row.entry.run.metrics]
    by_kind = {
        kind: [curve for curve in curves if curve[1].kind == kind]
        for kind in ("pretrain", "tune", "align")
    }
    drawings = []
    with mpl.rc_context(_STYLE):
        if any(row.cells[at].estimate for row in ledger.rows for at in ledger.headlines):
            drawings.append(_scores(ledger))
        for kind, title in (("pretrain", "Pretraining loss"), ("tune", "Fine-tuning loss")):
            if by_kind[kind]:
                drawings.append(_losses(f"loss-{kind}", title, by_kind[kind]))
        if by_kind["align"]:
            drawings.append(_alignment(by_kind["align"]))
        if curves:
            drawings.append(_rates(curves))
    return drawings


def series(entry: Entry, split: str, key: str) -> Series:
    """What a training logged under `key` of one split."""
    rows = [
        (row["step"], row[key])
        for row in entry.run.metrics
        if row["split"] == split and math.isfinite(row.get(key, math.nan))
    ]
    table = np.array(rows, dtype=np.float64).reshape(-1, 2)
    return Series(table[:, 0], table[:, 1])


def smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean of about a tenth of all values around each one; at the ends, of those there are."""
    n = len(values)
    half, at = n // 20 + 1, np.arange(n)
    first, last = np.maximum(at - half, 0), np.minimum(at + half + 1, n)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    means: NDArray[np.float64] = (sums[last] - sums[first]) / (last - first)
    return means


# -- training -------------------------------------------------------------------------------------

_Curves = Sequence[tuple[str, Entry]]
_FEW = 8
"""Points below which a curve is not smoothed."""


def _losses(name: str, title: str, curves: _Curves) -> Drawing:
    figure, axes = _panels(len(curves), share="y")
    said = []
    for ax, (model, entry) in zip(axes, curves, strict=True):
        train, holdout = series(entry, "train", "loss"), series(entry, "holdout", "loss")
        _curve(ax, train, BLUE, "training")
        _points(ax, holdout, VERMILION, "hold-out")
        _head(ax, model, entry)
        said.append(
            _sentence(model, [_way("training loss", train), _way("hold-out loss", holdout)])
        )
    _legend(figure, axes[0])
    _outer_labels(figure, "loss (nats per token)", "optimizer step")
    return _drawing(figure, name, title, said)


_PANELS = (
    ("DPO loss (nats)", (("loss", BLUE, ""),)),
    ("reward accuracy\n(share of pairs)", (("accuracy", BLUE, ""),)),
    ("reward margin\n(β × nats)", (("margin", BLUE, ""),)),
    (
        "log-probability\n(nats per answer)",
        (("chosen_logprob", GREEN, "chosen, "), ("rejected_logprob", ORANGE, "rejected, ")),
    ),
)
_LEVELS = {"loss": math.log(2), "accuracy": 0.5, "margin": 0.0}
"""Where the model stands before its first step."""


def _alignment(curves: _Curves) -> Drawing:
    figure, grid = _figure(len(_PANELS), len(curves), height=1.6, sharey="row", sharex="col")
    said = []
    for column, (model, entry) in enumerate(curves):
        for (unit, lines), ax in zip(_PANELS, grid[:, column], strict=True):
            for key, colour, what in lines:
                _curve(ax, series(entry, "train", key), colour, f"{what}training")
                marked = VERMILION if key in _LEVELS else colour
                _points(ax, series(entry, "holdout", key), marked, f"{what}hold-out")
                if key in _LEVELS:
                    ax.axhline(_LEVELS[key], color=GREY, linewidth=0.9, linestyle=(0, (2, 2)))
            if column == 0:
                ax.set_ylabel(unit)
        _head(grid[0, column], model, entry)
        grid[-1, column].set_xlabel("optimizer step")
        said.append(
            _sentence(
                model,
                [
                    _way("DPO loss", series(entry, "train", "loss")),
                    _way("reward accuracy", series(entry, "train", "accuracy")),
                    _way("hold-out reward accuracy", series(entry, "holdout", "accuracy")),
                    _way("log-probability of chosen", series(entry, "train", "chosen_logprob")),
                    _way("of rejected", series(entry, "train", "rejected_logprob")),
                ],
            )
        )
    _legend(figure, grid[0, 0], grid[-1, 0])
    said.append("Dotted: where the model stands before its first step.")
    return _drawing(figure, "alignment", "Preference alignment", said)


def _rates(curves: _Curves) -> Drawing:
    from matplotlib.ticker import FuncFormatter

    figure, axes = _panels(len(curves), share=False)
    said = []
    for ax, (model, entry) in zip(axes, curves, strict=True):
        rate = series(entry, "train", "lr")
        ax.plot(*rate, color=BLUE)
        ax.set_ylim(bottom=0)
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        _head(ax, model, entry)
        if len(rate.steps):
            top = int(rate.values.argmax())
            said.append(
                f"{model}: at most {_three(rate.values[top])} (step {rate.steps[top]:.0f}), "
                f"{_three(rate.values[-1])} at the end (step {rate.steps[-1]:.0f})."
            )
    _outer_labels(figure, "learning rate", "optimizer step")
    return _drawing(figure, "learning-rate", "Learning rate", said)


def _curve(ax: "Axes", found: Series, colour: str, name: str) -> None:
    """The values as they are, thin, and smoothed, thick; only as they are where they are few."""
    if len(found.steps) < _FEW:
        ax.plot(*found, color=colour, label=name)
        return
    ax.plot(*found, color=colour, alpha=0.3, linewidth=0.8)
    ax.plot(found.steps, smooth(found.values), color=colour, label=name)


def _points(ax: "Axes", found: Series, colour: str, name: str) -> None:
    if len(found.steps):
        ax.plot(*found, color=colour, marker="o", linestyle=(0, (4, 2)), linewidth=1, label=name)


def _way(what: str, found: Series) -> str:
    """From where to where a curve goes, in words; nothing for an empty one."""
    if not len(found.steps):
        return ""
    first, last = (f"{_three(found.values[at])} (step {found.steps[at]:.0f})" for at in (0, -1))
    return f"{what} {first} to {last}" if len(found.steps) > 1 else f"{what} {first}"


def _three(value: float) -> str:
    """Three significant digits."""
    return f"{value:#.3g}".rstrip(".").replace("-", "−")


def _sentence(model: str, parts: Sequence[str]) -> str:
    return f"{model}: {', '.join(part for part in parts if part) or 'nothing was logged'}."


def _head(ax: "Axes", model: str, entry: Entry) -> None:
    unfinished = "" if entry.state == "finished" else f" ({entry.state})"
    ax.set_title(f"{_short(model)}{unfinished}")


# -- scores ---------------------------------------------------------------------------------------

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
    count, models = len(shown), [_short(row.model) for row in ledger.rows]
    height = 0.75 + 0.21 * len(models)
    figure, axes = _panels(count, share="y", height=height)
    said, used = [], set()
    for ax, at in zip(axes, shown, strict=True):
        cells = [row.cells[at] for row in ledger.rows]
        for y, cell in enumerate(cells):
            used.add(_dot(ax, y, cell))
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
    return _drawing(figure, "scores", "Headline scores with 95 % intervals", said)


def _dot(ax: "Axes", y: int, cell: Cell) -> str | None:
    """Draws one score; gives the verdict that its marker stands for."""
    verdict = cell.difference.verdict if cell.difference else None
    if (found := cell.estimate) is None:
        ax.text(0.02, y, "no value", transform=ax.get_yaxis_transform(), va="center", color=GREY)
        return verdict
    marker, colour, _ = _DOTS[verdict]
    scale = cell.column.scale
    ax.plot([found.low * scale, found.high * scale], [y, y], color=colour, linewidth=1.4)
    ax.plot([found.value * scale], [y], color=colour, marker=marker, markersize=5)
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


# -- sheets ---------------------------------------------------------------------------------------


def _figure(
    rows: int, columns: int, *, height: float = _HEIGHT, **share: Any
) -> "tuple[Figure, NDArray[Any]]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(columns, 2) * _WIDTH, rows * height + 0.3), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **share)


def _panels(count: int, *, share: Any, height: float = _HEIGHT) -> "tuple[Figure, Sequence[Axes]]":
    """As many panels as asked, at most `_COLUMNS` side by side."""
    columns = min(count, _COLUMNS)
    figure, grid = _figure(
        -(-count // columns), columns, height=height, sharey="all" if share == "y" else False
    )
    axes = list(grid.flat)
    for spare in axes[count:]:
        spare.remove()
    return figure, axes[:count]


def _outer_labels(figure: "Figure", y: str, x: str) -> None:
    figure.supylabel(y, fontsize=8.5, color="#374151")
    figure.supxlabel(x, fontsize=8.5, color="#374151")


def _legend(figure: "Figure", *sources: "Axes") -> None:
    named = {
        name: line
        for ax in sources
        for line, name in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    figure.legend(named.values(), named.keys(), loc="outside upper left", ncols=3)


def _short(name: str) -> str:
    return name if len(name) <= 24 else f"{name[:23]}…"


def _drawing(figure: "Figure", name: str, title: str, said: Sequence[str]) -> Drawing:
    svg, png = io.BytesIO(), io.BytesIO()
    figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    figure.savefig(png, format="png", dpi=160, metadata={"Software": None})
    return Drawing(name, title, " ".join(said), svg.getvalue(), png.getvalue())
