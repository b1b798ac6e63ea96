"""Progress display while stages run: a bar for each, or plain lines without a terminal."""

import time
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from zephyr.engine.plan import Plan
from zephyr.engine.worker import WorkerMessage

PRINT_INTERVAL_SECONDS = 20
"""Minimum seconds between two progress lines of a stage without a terminal."""


@dataclass
class ProgressDisplay:
    """Shows the progress of a plan on `console` (a context manager)."""

    plan: Plan
    console: Console
    todo: int
    finished_count: int = 0
    bars: dict[str, TaskID] = field(default_factory=dict)
    started: dict[str, float] = field(default_factory=dict)
    last_printed: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(compact=True),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )

    def __enter__(self) -> "ProgressDisplay":
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def on_report(self, report: WorkerMessage) -> None:
        """Callback for a progress message of the scheduler."""
        name = report.node
        if report.state == "started":
            self.started[name] = self.last_printed[name] = time.monotonic()
            label = f"[bold]{name}[/] {self.plan.nodes[name].kind}"
            self.bars[name] = self.progress.add_task(label, total=None, numbers="")
        elif report.state == "notice":
            self.console.print(f"  [yellow]{name}: {escape(report.text)}[/]", highlight=False)
        elif report.state == "progress":
            numbers = _progress_text(report)
            self.progress.update(
                self.bars[name], completed=report.done, total=report.total, numbers=numbers
            )
            if (
                not self.console.is_terminal
                and time.monotonic() - self.last_printed[name] > PRINT_INTERVAL_SECONDS
            ):
                self.last_printed[name] = time.monotonic()
                self.console.print(f"  {name}: {numbers}", highlight=False)
        else:
            self._on_end(report)

    def _on_end(self, report: WorkerMessage) -> None:
        self.finished_count += 1
        seconds = time.monotonic() - self.started[report.node]
        self.progress.remove_task(self.bars.pop(report.node))
        state_labels = {"done": "[green]done[/]", "stopped": "[yellow]stopped[/]"}
        state = state_labels.get(report.state, "[red]failed[/]")
        kind = self.plan.nodes[report.node].kind
        self.console.print(
            f"[{self.finished_count}/{self.todo}] {state} {report.node} ({kind}, {seconds:.1f} s)",
            highlight=False,
        )


def _progress_text(report: WorkerMessage) -> str:
    row: dict[str, Any] = report.row or {}
    parts = [f"step {report.done}/{report.total}"]
    if "loss" in row:
        parts.append(f"loss {row['loss']:.3f}")
    if "tokens_per_second" in row:
        parts.append(f"{row['tokens_per_second']:,.0f} tokens/s")
    return " · ".join(parts)
