"""What is shown while stages run: a bar for each, or plain lines where there is no terminal."""

import time
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from zephyr.engine.plan import Plan
from zephyr.engine.worker import Report

QUIET_SECONDS = 20
"""Without a terminal, a stage speaks no more often than this."""


@dataclass
class Display:
    """Shows the progress of a plan on `console`; used as a context."""

    plan: Plan
    console: Console
    todo: int
    ended: int = 0
    bars: dict[str, TaskID] = field(default_factory=dict)
    started: dict[str, float] = field(default_factory=dict)
    spoke: dict[str, float] = field(default_factory=dict)

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

    def __enter__(self) -> "Display":
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def hear(self, report: Report) -> None:
        """Takes what the engine says."""
        name = report.node
        if report.state == "started":
            self.started[name] = self.spoke[name] = time.monotonic()
            label = f"[bold]{name}[/] {self.plan.nodes[name].kind}"
            self.bars[name] = self.progress.add_task(label, total=None, numbers="")
        elif report.state == "told":
            self.console.print(f"  [yellow]{name}: {escape(report.text)}[/]", highlight=False)
        elif report.state == "progress":
            numbers = _numbers(report)
            self.progress.update(
                self.bars[name], completed=report.done, total=report.of, numbers=numbers
            )
            if not self.console.is_terminal and time.monotonic() - self.spoke[name] > QUIET_SECONDS:
                self.spoke[name] = time.monotonic()
                self.console.print(f"  {name}: {numbers}", highlight=False)
        else:
            self._end(report)

    def _end(self, report: Report) -> None:
        self.ended += 1
        seconds = time.monotonic() - self.started[report.node]
        self.progress.remove_task(self.bars.pop(report.node))
        mark = {"done": "[green]done[/]", "stopped": "[yellow]stopped[/]"}
        state = mark.get(report.state, "[red]failed[/]")
        kind = self.plan.nodes[report.node].kind
        self.console.print(
            f"[{self.ended}/{self.todo}] {state} {report.node} ({kind}, {seconds:.1f} s)",
            highlight=False,
        )


def _numbers(report: Report) -> str:
    row: dict[str, Any] = report.row or {}
    parts = [f"step {report.done}/{report.of}"]
    if "loss" in row:
        parts.append(f"loss {row['loss']:.3f}")
    if "tokens_per_second" in row:
        parts.append(f"{row['tokens_per_second']:,.0f} tokens/s")
    return " · ".join(parts)
