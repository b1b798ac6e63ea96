"""Progress display while stages run: a bar for each, or plain lines without a terminal.

Whatever takes longer than some seconds says its phase, how far it is, and about how long it will
take, in a terminal and in plain output alike.
"""

import threading
import time
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from zephyr.engine.plan import Plan
from zephyr.engine.worker import WorkerMessage

FIRST_LINE_SECONDS = 5
"""Seconds after which a stage prints its first progress line without a terminal."""
LINE_INTERVAL_SECONDS = 20
"""Seconds between two progress lines of a stage without a terminal."""


@dataclass
class StageProgress:
    """The progress of one running stage: its phase, what is done of it, and the pace."""

    start: float
    next_line: float
    bar: TaskID
    phase: str = "starting"
    done: int = 0
    total: int = 0
    row: dict[str, Any] = field(default_factory=dict)
    paces: dict[str, float] = field(default_factory=dict)
    """Seconds for each item of a phase, a running mean."""

    def __post_init__(self) -> None:
        self.phase_start = self.counted = self.start

    def update(self, message: WorkerMessage, now: float) -> None:
        """Takes in a progress message."""
        if message.phase != self.phase:
            self.phase, self.phase_start = message.phase, now
        elif message.done > self.done:
            pace = (now - self.counted) / (message.done - self.done)
            self.paces[self.phase] = 0.7 * self.paces.get(self.phase, pace) + 0.3 * pace
        self.done, self.total, self.counted = message.done, message.total, now
        self.row = message.row or self.row

    def seconds_left(self, now: float) -> float | None:
        """Estimated seconds to the end of the phase; None where there is no pace yet."""
        pace = self.paces.get(self.phase)
        if pace is None or not self.total:
            return None
        return max(0.0, pace * (self.total - self.done) - (now - self.counted))

    def describe(self, now: float) -> str:
        """The phase, what is done, metrics, pace, and the time that is left."""
        parts = [self.phase]
        if self.phase == "training":
            parts.append(f"step {self.done}/{self.total}")
            if "loss" in self.row:
                parts.append(f"loss {self.row['loss']:.3f}")
            if "tokens_per_second" in self.row:
                parts.append(f"{self.row['tokens_per_second']:,.0f} tokens/s")
            if (pace := self.paces.get("training", 0.0)) > 1:
                parts.append(f"{pace:.1f} s a step")
        elif self.total:
            parts.append(f"{self.done}/{self.total}")
        left = self.seconds_left(now)
        if left is not None:
            parts.append(f"about {format_seconds(left)} left")
        elif now - self.phase_start > FIRST_LINE_SECONDS:
            parts.append(f"for {format_seconds(now - self.phase_start)}")
        return " · ".join(parts)


@dataclass
class ProgressDisplay:
    """Shows the progress of a plan on `console` (a context manager)."""

    plan: Plan
    console: Console
    todo: int
    finished_count: int = 0
    running: dict[str, StageProgress] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._ticker = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> "ProgressDisplay":
        self.progress.start()
        self._ticker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._ticker.join()
        self.progress.stop()

    def on_report(self, report: WorkerMessage) -> None:
        """Callback for a message of the scheduler or a worker."""
        name, now = report.node, time.monotonic()
        with self._lock:
            if report.state == "stopping":
                self._print_stopping(name)
                return
            if report.state == "started":
                label = f"[bold]{name}[/] {self.plan.nodes[name].kind}"
                bar = self.progress.add_task(label, total=None, state="")
                self.running[name] = StageProgress(now, now + FIRST_LINE_SECONDS, bar)
            elif report.state == "notice":
                self.console.print(f"  [yellow]{name}: {escape(report.text)}[/]", highlight=False)
            elif report.state == "progress":
                self.running[name].update(report, now)
                self._update_bar(self.running[name], now)
            else:
                self._print_end(report, now)

    def _tick(self) -> None:
        """Updates the bars, or prints lines, while no message comes (a ticker thread)."""
        while not self._ended.wait(1):
            now = time.monotonic()
            with self._lock:
                for name, stage in self.running.items():
                    if self.console.is_terminal:
                        self._update_bar(stage, now)
                    elif now >= stage.next_line:
                        stage.next_line = now + LINE_INTERVAL_SECONDS
                        self.console.print(f"  {name}: {stage.describe(now)}", highlight=False)

    def _update_bar(self, stage: StageProgress, now: float) -> None:
        state = escape(stage.describe(now))
        total = stage.total or None
        self.progress.update(stage.bar, completed=stage.done, total=total, state=state)

    def _print_stopping(self, name: str) -> None:
        if not name:
            self.console.print("  stopping", highlight=False)
            return
        stage = self.running[name]
        pace = stage.paces.get("training")
        after = "step" if stage.phase == "training" else stage.phase
        how_long = f", about {format_seconds(pace)}" if after == "step" and pace else ""
        self.console.print(
            f"  {name}: stopping after this {after}{how_long}; once more to stop at once",
            highlight=False,
        )

    def _print_end(self, report: WorkerMessage, now: float) -> None:
        self.finished_count += 1
        stage = self.running.pop(report.node)
        self.progress.remove_task(stage.bar)
        state_labels = {"done": "[green]done[/]", "stopped": "[yellow]stopped[/]"}
        state = state_labels.get(report.state, "[red]failed[/]")
        kind = self.plan.nodes[report.node].kind
        self.console.print(
            f"[{self.finished_count}/{self.todo}] {state} {report.node} "
            f"({kind}, {now - stage.start:.1f} s)",
            highlight=False,
        )


def format_seconds(seconds: float) -> str:
    """A duration for people: 40 s, 12 min, 3 h 20 min."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
