"""The progress display: phases, what is left, and lines where there is no terminal."""

import io
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from zephyr.cli.progress import ProgressDisplay, StageProgress, format_seconds
from zephyr.engine.worker import WorkerMessage


def make_stage(start: float = 100.0) -> StageProgress:
    return StageProgress(start, start, bar=0)  # type: ignore[arg-type]  # no bar is drawn


def training(done: int, row: dict[str, Any] | None = None) -> WorkerMessage:
    return WorkerMessage("M1", "progress", "training", done, 10, row)


def test_the_pace_of_steps_tells_what_is_left() -> None:
    stage = make_stage()
    stage.update(WorkerMessage("M1", "progress", "loading the model", 0, 0), 101)
    assert stage.describe(103) == "loading the model"
    assert stage.describe(140) == "loading the model · for 39 s"
    assert stage.seconds_left(140) is None
    stage.update(training(1), 150)  # a new phase: nothing is known of its pace
    assert stage.seconds_left(150) is None
    stage.update(training(2, {"loss": 2.5}), 190)
    assert stage.paces == {"training": 40.0}
    assert stage.seconds_left(190) == 8 * 40
    assert stage.seconds_left(200) == 8 * 40 - 10  # time goes on within a step
    assert stage.describe(200) == (
        "training · step 2/10 · loss 2.500 · 40.0 s a step · about 5 min left"
    )


def test_a_phase_between_steps_does_not_count_as_a_step() -> None:
    stage = make_stage()
    for done, now in ((1, 110), (2, 120)):
        stage.update(training(done), now)
    stage.update(WorkerMessage("M1", "progress", "hold-out", 0, 8), 121)
    stage.update(WorkerMessage("M1", "progress", "hold-out", 4, 8), 161)
    assert stage.describe(161) == "hold-out · 4/8 · about 40 s left"
    stage.update(training(3), 210)
    stage.update(training(4), 220)
    assert stage.paces["training"] == pytest.approx(10)


PLAN: Any = SimpleNamespace(nodes={"M1": SimpleNamespace(kind="tune")})


def test_plain_output_has_lines_while_nothing_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zephyr.cli.progress.FIRST_LINE_SECONDS", 0.5)
    monkeypatch.setattr("zephyr.cli.progress.LINE_INTERVAL_SECONDS", 0.5)
    text = io.StringIO()
    with ProgressDisplay(PLAN, Console(file=text, width=120), 1) as display:
        display.on_report(WorkerMessage("M1", "started"))
        display.on_report(WorkerMessage("M1", "progress", "preflight checks", 2, 5))
        display._ended.wait(2.5)  # a stage that computes, and says nothing
        display.on_report(WorkerMessage("M1", "progress", "training", 3, 9))
        display.on_report(WorkerMessage("M1", "stopping"))
        display.on_report(WorkerMessage("M1", "stopped"))
    lines = text.getvalue().splitlines()
    assert lines[0].startswith("  M1: preflight checks · 2/5")
    assert len([line for line in lines if "preflight" in line]) >= 2
    assert "  M1: stopping after this step; once more to stop at once" in lines
    assert lines[-1].startswith("[1/1] stopped M1 (tune, ")


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0.2, "1 s"), (89, "89 s"), (100, "2 min"), (12_000, "3 h 20 min")]
)
def test_durations_for_people(seconds: float, expected: str) -> None:
    assert format_seconds(seconds) == expected
