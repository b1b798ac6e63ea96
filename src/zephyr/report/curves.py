"""Training curves (matplotlib): metrics over optimizer steps, as logged by training runs."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from zephyr.report.node_status import NodeStatus
from zephyr.report.plotting import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    VERMILION,
    Drawing,
    Panel,
    Point,
    add_legend,
    new_figure,
    new_panels,
    render_drawing,
    set_outer_labels,
    set_side_labels,
    shorten_name,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Series(NamedTuple):
    """A time series: values over optimizer steps, without non-finite ones."""

    steps: NDArray[np.float64]
    values: NDArray[np.float64]


def read_series(node: NodeStatus, split: str, key: str) -> Series:
    """Reads the values that a training run logged under `key` for one split."""
    rows = [
        (row["step"], row[key])
        for row in node.run.metrics
        if row["split"] == split and row.get(key) is not None and math.isfinite(row[key])
    ]
    table = np.array(rows, dtype=np.float64).reshape(-1, 2)
    return Series(table[:, 0], table[:, 1])


def smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Centered moving average over about a tenth of all values; the window shrinks at the ends."""
    n = len(values)
    half, at = n // 20 + 1, np.arange(n)
    first, last = np.maximum(at - half, 0), np.minimum(at + half + 1, n)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    means: NDArray[np.float64] = (sums[last] - sums[first]) / (last - first)
    return means


Curves = Sequence[tuple[str, NodeStatus]]
_MIN_POINTS_TO_SMOOTH = 8
"""Minimum number of points for a curve to be smoothed."""


_LOSS = "loss (nats per token)"


def draw_loss(name: str, title: str, curves: Curves) -> Drawing:
    """Draws the training and hold-out loss of each model."""
    figure, axes = new_panels(len(curves), share="y")
    captions, points = [], list[Point]()
    for ax, (model, node) in zip(axes, curves, strict=True):
        train, holdout = read_series(node, "train", "loss"), read_series(node, "holdout", "loss")
        panel = Panel(ax, _panel_name(model, _LOSS), points)
        _plot_smoothed(panel, train, BLUE, "training")
        _plot_points(panel, holdout, VERMILION, "hold-out")
        _set_panel_title(ax, model, node)
        captions.append(
            _caption(
                model, [_trend_text("training loss", train), _trend_text("hold-out loss", holdout)]
            )
        )
    add_legend(figure, axes[0])
    set_outer_labels(figure, _LOSS, "optimizer step")
    return render_drawing(figure, name, title, captions, points)


_DPO_PANELS = (
    ("DPO loss (nats)", "loss", math.log(2)),
    ("reward accuracy\n(share of pairs)", "accuracy", 0.5),
    ("reward margin\n(β × nats)", "margin", 0.0),
)
"""Unit, key, and the value before the first step."""
_LOGPROB_CHANGE = "change of log-prob.\n(nats per answer)"
_ANSWER_COLOURS = (("chosen", GREEN), ("rejected", ORANGE))


def draw_alignment(curves: Curves) -> Drawing:
    """Draws loss, reward accuracy, reward margin and logprobs of DPO trainings."""
    rows = len(_DPO_PANELS) + 1
    figure, grid = new_figure(rows, len(curves), height=1.6, sharey="row", sharex="col")
    captions, points = [], list[Point]()
    for column, (model, node) in enumerate(curves):
        for (unit, key, level), ax in zip(_DPO_PANELS, grid[:, column], strict=False):
            panel = Panel(ax, _panel_name(model, unit), points)
            _plot_smoothed(panel, read_series(node, "train", key), BLUE, "training")
            _plot_points(panel, read_series(node, "holdout", key), VERMILION, "hold-out")
            _plot_reference_line(ax, level)
        changes = {
            answer: _change_from_start(node, f"{answer}_logprob") for answer, _ in _ANSWER_COLOURS
        }
        panel = Panel(grid[-1, column], _panel_name(model, _LOGPROB_CHANGE), points)
        for answer, colour in _ANSWER_COLOURS:
            _plot_points(panel, changes[answer], colour, f"{answer}, hold-out")
        _plot_reference_line(grid[-1, column], 0)
        _set_panel_title(grid[0, column], model, node)
        best_step = _best_step(node)
        if best_step is not None:
            for ax in grid[:, column]:
                ax.axvline(best_step, color=GREY, linewidth=0.9, label="kept")
        parts = [
            _trend_text("DPO loss", read_series(node, "train", "loss")),
            _trend_text("reward accuracy", read_series(node, "train", "accuracy")),
            _trend_text("hold-out reward accuracy", read_series(node, "holdout", "accuracy")),
            _trend_text("change of the log-probability of chosen answers", changes["chosen"]),
            _trend_text("of rejected", changes["rejected"]),
            "" if best_step is None else f"kept at step {best_step}",
        ]
        captions.append(_caption(model, parts))
    units = [*(unit for unit, *_ in _DPO_PANELS), _LOGPROB_CHANGE]
    set_side_labels(grid, units)
    add_legend(figure, *grid[0], grid[-1, 0])
    captions.append(
        "Dotted: where the model stands before its first step. Log-probabilities are those of "
        "answers of the hold-out: where chosen ones fall too, the model moves away from both."
    )
    return render_drawing(figure, "alignment", "Preference alignment", captions, points)


def _change_from_start(node: NodeStatus, key: str) -> Series:
    """The change of a hold-out metric since step 0; empty if that was not logged."""
    steps, values = read_series(node, "holdout", key)
    if not len(steps) or steps[0] != 0:
        return Series(steps[:0], values[:0])
    return Series(steps, values - values[0])


def _best_step(node: NodeStatus) -> int | None:
    """The step of the best checkpoint; None if the weights are those of the last step."""
    if node.state != "finished":
        return None
    step: int | None = node.run.read("env.json").get("kept_step")
    return step


_SAMPLE_GENERATION_PANELS = (
    ("ended by themselves\n(share of answers)", "stopped", "answers that end by themselves"),
    ("length\n(tokens)", "length", "tokens of an answer"),
    ("repeated 4-grams\n(share)", "repeated", "repeated 4-grams"),
)


def draw_sample_generations(curves: Curves) -> Drawing:
    """Draws length, finish and repetition of sample generations during training."""
    figure, grid = new_figure(
        len(_SAMPLE_GENERATION_PANELS), len(curves), height=1.3, sharey="row", sharex="col"
    )
    captions, points = [], list[Point]()
    for column, (model, node) in enumerate(curves):
        for (unit, key, _), ax in zip(_SAMPLE_GENERATION_PANELS, grid[:, column], strict=True):
            _plot_points(
                Panel(ax, _panel_name(model, unit), points),
                read_series(node, "canary", key),
                BLUE,
                "canary",
            )
        _set_panel_title(grid[0, column], model, node)
        captions.append(
            _caption(
                model,
                [
                    _trend_text(what, read_series(node, "canary", key))
                    for _, key, what in _SAMPLE_GENERATION_PANELS
                ],
            )
        )
    for share in grid[::2].flat:
        share.set_ylim(-0.05, 1.05)
    for length in grid[1]:
        length.set_ylim(0, 1.05 * length.get_ylim()[1])
    set_side_labels(grid, [unit for unit, *_ in _SAMPLE_GENERATION_PANELS])
    title = "A few prompts, answered again at each evaluation"
    return render_drawing(figure, "canary", title, captions, points)


def draw_learning_rates(curves: Curves) -> Drawing:
    """Draws the learning rate schedule of each training."""
    from matplotlib.ticker import FuncFormatter

    figure, axes = new_panels(len(curves), share=False)
    captions, points = [], list[Point]()
    for ax, (model, node) in zip(axes, curves, strict=True):
        rate = read_series(node, "train", "lr")
        Panel(ax, model, points).plot("learning rate", *rate, color=BLUE)
        ax.set_ylim(bottom=0)
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        _set_panel_title(ax, model, node)
        if len(rate.steps):
            top = int(rate.values.argmax())
            captions.append(
                f"{model}: at most {_three_digits(rate.values[top])} (step {rate.steps[top]:.0f}), "
                f"{_three_digits(rate.values[-1])} at the end (step {rate.steps[-1]:.0f})."
            )
    set_outer_labels(figure, "learning rate", "optimizer step")
    return render_drawing(figure, "learning-rate", "Learning rate", captions, points)


def _panel_name(model: str, unit: str) -> str:
    """The name of a panel in one line."""
    return f"{model}: {unit}".replace("\n", " ")


def _plot_smoothed(panel: Panel, found: Series, colour: str, name: str) -> None:
    """Plots raw values thin and smoothed ones thick; only raw ones if there are few."""
    if len(found.steps) < _MIN_POINTS_TO_SMOOTH:
        panel.plot(name, *found, color=colour, label=name)
        return
    panel.plot(name, *found, color=colour, alpha=0.3, linewidth=0.8)
    means = smooth(found.values)
    panel.plot(f"{name}, smoothed", found.steps, means, color=colour, label=name)


def _plot_points(panel: Panel, found: Series, colour: str, name: str) -> None:
    if len(found.steps):
        style: dict[str, Any] = {"marker": "o", "linestyle": (0, (4, 2)), "linewidth": 1}
        panel.plot(name, *found, color=colour, label=name, **style)


def _plot_reference_line(ax: "Axes", value: float) -> None:
    ax.axhline(value, color=GREY, linewidth=0.9, linestyle=(0, (2, 2)))


def _trend_text(what: str, found: Series) -> str:
    """The trend of a curve in words (alt text): its first and last value; "" if empty."""
    if not len(found.steps):
        return ""
    first, last = (
        f"{_three_digits(found.values[at])} (step {found.steps[at]:.0f})" for at in (0, -1)
    )
    return f"{what} {first} to {last}" if len(found.steps) > 1 else f"{what} {first}"


def _three_digits(value: float) -> str:
    """Formats a number with three significant digits."""
    return f"{value:#.3g}".rstrip(".").replace("-", "−")


def _caption(model: str, parts: Sequence[str]) -> str:
    return f"{model}: {', '.join(part for part in parts if part) or 'nothing was logged'}."


def _set_panel_title(ax: "Axes", model: str, node: NodeStatus) -> None:
    unfinished = "" if node.state == "finished" else f" ({node.state})"
    ax.set_title(f"{shorten_name(model)}{unfinished}")
