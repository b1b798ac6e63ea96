"""Curves: what trainings logged over their steps."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from zephyr.report.ledger import Entry
from zephyr.report.sheets import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    VERMILION,
    Drawing,
    Panel,
    Point,
    drawing,
    legend,
    new_figure,
    outer_labels,
    panels,
    short,
    side_labels,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Series(NamedTuple):
    """Values over optimizer steps; what is not a finite number is left out."""

    steps: NDArray[np.float64]
    values: NDArray[np.float64]


def series(entry: Entry, split: str, key: str) -> Series:
    """What a training logged under `key` of one split."""
    rows = [
        (row["step"], row[key])
        for row in entry.run.metrics
        if row["split"] == split and row.get(key) is not None and math.isfinite(row[key])
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


Curves = Sequence[tuple[str, Entry]]
_FEW = 8
"""Points below which a curve is not smoothed."""


_LOSS = "loss (nats per token)"


def losses(name: str, title: str, curves: Curves) -> Drawing:
    figure, axes = panels(len(curves), share="y")
    said, points = [], list[Point]()
    for ax, (model, entry) in zip(axes, curves, strict=True):
        train, holdout = series(entry, "train", "loss"), series(entry, "holdout", "loss")
        panel = Panel(ax, _named(model, _LOSS), points)
        _curve(panel, train, BLUE, "training")
        _points(panel, holdout, VERMILION, "hold-out")
        _head(ax, model, entry)
        said.append(
            _sentence(model, [_way("training loss", train), _way("hold-out loss", holdout)])
        )
    legend(figure, axes[0])
    outer_labels(figure, _LOSS, "optimizer step")
    return drawing(figure, name, title, said, points)


_PANELS = (
    ("DPO loss (nats)", "loss", math.log(2)),
    ("reward accuracy\n(share of pairs)", "accuracy", 0.5),
    ("reward margin\n(β × nats)", "margin", 0.0),
)
"""Unit, key, and where the model stands before its first step."""
_MOVED = "change of log-prob.\n(nats per answer)"
_ANSWERS = (("chosen", GREEN), ("rejected", ORANGE))


def alignment(curves: Curves) -> Drawing:
    rows = len(_PANELS) + 1
    figure, grid = new_figure(rows, len(curves), height=1.6, sharey="row", sharex="col")
    said, points = [], list[Point]()
    for column, (model, entry) in enumerate(curves):
        for (unit, key, level), ax in zip(_PANELS, grid[:, column], strict=False):
            panel = Panel(ax, _named(model, unit), points)
            _curve(panel, series(entry, "train", key), BLUE, "training")
            _points(panel, series(entry, "holdout", key), VERMILION, "hold-out")
            _level(ax, level)
        moved = {answer: _moved(entry, f"{answer}_logprob") for answer, _ in _ANSWERS}
        panel = Panel(grid[-1, column], _named(model, _MOVED), points)
        for answer, colour in _ANSWERS:
            _points(panel, moved[answer], colour, f"{answer}, hold-out")
        _level(grid[-1, column], 0)
        _head(grid[0, column], model, entry)
        kept = _kept(entry)
        if kept is not None:
            for ax in grid[:, column]:
                ax.axvline(kept, color=GREY, linewidth=0.9, label="kept")
        parts = [
            _way("DPO loss", series(entry, "train", "loss")),
            _way("reward accuracy", series(entry, "train", "accuracy")),
            _way("hold-out reward accuracy", series(entry, "holdout", "accuracy")),
            _way("change of the log-probability of chosen answers", moved["chosen"]),
            _way("of rejected", moved["rejected"]),
            "" if kept is None else f"kept at step {kept}",
        ]
        said.append(_sentence(model, parts))
    units = [*(unit for unit, *_ in _PANELS), _MOVED]
    side_labels(grid, units)
    legend(figure, *grid[0], grid[-1, 0])
    said.append(
        "Dotted: where the model stands before its first step. Log-probabilities are those of "
        "answers of the hold-out: where chosen ones fall too, the model moves away from both."
    )
    return drawing(figure, "alignment", "Preference alignment", said, points)


def _moved(entry: Entry, key: str) -> Series:
    """How a value of the hold-out has changed since the start; nothing if that was not logged."""
    steps, values = series(entry, "holdout", key)
    if not len(steps) or steps[0] != 0:
        return Series(steps[:0], values[:0])
    return Series(steps, values - values[0])


def _kept(entry: Entry) -> int | None:
    """The step whose weights were kept as the best; None where they are the last."""
    if entry.state != "finished":
        return None
    step: int | None = entry.run.read("env.json").get("kept_step")
    return step


_CANARY = (
    ("ended by themselves\n(share of answers)", "stopped", "answers that end by themselves"),
    ("length\n(tokens)", "length", "tokens of an answer"),
    ("repeated 4-grams\n(share)", "repeated", "repeated 4-grams"),
)


def canaries(curves: Curves) -> Drawing:
    figure, grid = new_figure(len(_CANARY), len(curves), height=1.3, sharey="row", sharex="col")
    said, points = [], list[Point]()
    for column, (model, entry) in enumerate(curves):
        for (unit, key, _), ax in zip(_CANARY, grid[:, column], strict=True):
            _points(
                Panel(ax, _named(model, unit), points), series(entry, "canary", key), BLUE, "canary"
            )
        _head(grid[0, column], model, entry)
        said.append(
            _sentence(model, [_way(what, series(entry, "canary", key)) for _, key, what in _CANARY])
        )
    for share in grid[::2].flat:
        share.set_ylim(-0.05, 1.05)
    for length in grid[1]:
        length.set_ylim(0, 1.05 * length.get_ylim()[1])
    side_labels(grid, [unit for unit, *_ in _CANARY])
    title = "A few prompts, answered again at each evaluation"
    return drawing(figure, "canary", title, said, points)


def rates(curves: Curves) -> Drawing:
    from matplotlib.ticker import FuncFormatter

    figure, axes = panels(len(curves), share=False)
    said, points = [], list[Point]()
    for ax, (model, entry) in zip(axes, curves, strict=True):
        rate = series(entry, "train", "lr")
        Panel(ax, model, points).plot("learning rate", *rate, color=BLUE)
        ax.set_ylim(bottom=0)
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        _head(ax, model, entry)
        if len(rate.steps):
            top = int(rate.values.argmax())
            said.append(
                f"{model}: at most {_three(rate.values[top])} (step {rate.steps[top]:.0f}), "
                f"{_three(rate.values[-1])} at the end (step {rate.steps[-1]:.0f})."
            )
    outer_labels(figure, "learning rate", "optimizer step")
    return drawing(figure, "learning-rate", "Learning rate", said, points)


def _named(model: str, unit: str) -> str:
    """The name of a panel in one line."""
    return f"{model}: {unit}".replace("\n", " ")


def _curve(panel: Panel, found: Series, colour: str, name: str) -> None:
    """The values as they are, thin, and smoothed, thick; only as they are where they are few."""
    if len(found.steps) < _FEW:
        panel.plot(name, *found, color=colour, label=name)
        return
    panel.plot(name, *found, color=colour, alpha=0.3, linewidth=0.8)
    means = smooth(found.values)
    panel.plot(f"{name}, smoothed", found.steps, means, color=colour, label=name)


def _points(panel: Panel, found: Series, colour: str, name: str) -> None:
    if len(found.steps):
        style: dict[str, Any] = {"marker": "o", "linestyle": (0, (4, 2)), "linewidth": 1}
        panel.plot(name, *found, color=colour, label=name, **style)


def _level(ax: "Axes", value: float) -> None:
    ax.axhline(value, color=GREY, linewidth=0.9, linestyle=(0, (2, 2)))


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
    ax.set_title(f"{short(model)}{unfinished}")
