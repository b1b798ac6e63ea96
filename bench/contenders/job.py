"""What every contender's process does alike: reads a job, writes a result, times its passes.

A pass trains a fresh adapter on a file of rows, in one epoch. The first pass warms the process up
and is not counted; the second is.
"""

import contextlib
import ctypes
import gc
import importlib.metadata
import json
import resource
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

Row = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """A contender's task. `batch` counts rows of an optimizer step; `options` are its settings.

    On a CPU a process that asks for more than `memory` bytes fails, and does not starve others.
    """

    kind: str
    model: str
    device: str
    targets: list[str] | str
    rows: list[str]
    batch: int
    max_length: int
    tokens_per_row: float
    folder: str
    memory: int
    options: dict[str, Any]
    rank: int = 8
    alpha: int = 16
    lr: float = 5e-5
    beta: float = 0.1

    def chats(self, path: str) -> list[Row]:
        """The rows of a pass as conversations: `prompt`, and one or two answers as messages."""
        keys = ("completion",) if self.kind == "sft" else ("chosen", "rejected")
        return [
            row | {key: [{"role": "assistant", "content": row[key]}] for key in keys}
            for row in read_rows(path)
        ]

    def trainer(self, forward: float) -> dict[str, Any]:
        """What each peer's Trainer is told; a forward holds `forward` rows."""
        return {
            "gradient_accumulation_steps": max(1, round(self.batch / forward)),
            "learning_rate": self.lr,
            "lr_scheduler_type": "constant",
            "num_train_epochs": 1,
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
            "use_cpu": self.device == "cpu",
            "dataloader_pin_memory": self.device == "cuda",
        }


@dataclass
class Pass:
    """What a pass took, and what the network was shown and said in it."""

    seconds: float = 0.0
    reference_seconds: float = 0.0
    steps: int = 0
    supervised: int = 0
    """Tokens that the contender itself supervised."""
    loss: list[float] = field(default_factory=list)
    """Of each optimizer step."""
    chosen: list[float] = field(default_factory=list)
    """Mean log-probability of a step's chosen answers, summed over their tokens."""
    outside: float | None = None
    """Share of the time that was spent outside forward, backward and optimizer."""


def main(one_pass: Callable[[Job, str], Pass], packages: Iterable[str]) -> None:
    """Runs the job in the file that the command line names, and writes the result to the other."""
    source, goal = map(Path, sys.argv[1:])
    job = Job(**json.loads(source.read_text()))
    if job.device == "cpu":
        resource.setrlimit(resource.RLIMIT_AS, (job.memory, job.memory))
    passes = []
    for rows in job.rows:
        passes.append(asdict(one_pass(job, rows)))
        _give_back()  # lest the model of one pass still counts in the next
    result = {
        "passes": passes,
        "peak_bytes": peak_bytes(job.device),
        "threads": threads(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }
    goal.write_text(json.dumps(result))


def _give_back() -> None:
    """`zephyr.system.memory.give_memory_back`, in environments that have no Zephyr."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def read_rows(path: str) -> list[Row]:
    return [json.loads(line) for line in Path(path).read_text("utf-8").split("\n") if line]


def now(device: str) -> float:
    """Seconds, once the device has done what it was given."""
    import torch

    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def threads() -> int:
    import torch

    return torch.get_num_threads()


def peak_bytes(device: str) -> int:
    """The most memory that the process held: resident on the CPU, allocated by torch on a GPU."""
    import torch

    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def watched(kept: Pass, device: str) -> Any:
    """A callback of transformers' Trainer that fills in `kept`."""
    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        start = 0.0

        def on_epoch_begin(self, *_: Any, **__: Any) -> None:
            self.start = now(device)

        def on_step_end(self, *_: Any, **__: Any) -> None:
            kept.seconds = now(device) - self.start
            kept.steps += 1

        def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
            if "loss" in logs:
                kept.loss.append(logs["loss"])
            if "logps/chosen" in logs:
                kept.chosen.append(logs["logps/chosen"])

    return Watch()


def count_supervised(trainer: Any, kept: Pass) -> None:
    """Makes every training step of a Trainer add what it supervises to `kept`."""
    step = trainer.training_step

    def counted(self: Any, model: Any, inputs: dict[str, Any], *rest: Any, **more: Any) -> Any:
        if "completion_mask" in inputs:
            kept.supervised += int(inputs["completion_mask"].sum())
        else:
            kept.supervised += int((inputs["labels"] != -100).sum())
        return step(self, model, inputs, *rest, **more)

    trainer.training_step = counted
