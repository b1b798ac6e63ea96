"""Training job: what the worker processes of all frameworks have in common.

A pass trains a fresh adapter on a file of rows, in one epoch. The first pass warms the process up
and is not counted; the second is.
"""

import contextlib
import ctypes
import gc
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from bench.shared import worker
from bench.shared.worker import Job, Row, read_rows, synchronized_time


@dataclass
class Pass:
    """What a pass took, and what the framework supervised and logged in it."""

    seconds: float = 0.0
    reference_seconds: float = 0.0
    steps: int = 0
    supervised: int = 0
    """Tokens that the framework itself supervised."""
    loss: list[float] = field(default_factory=list)
    """Of each optimizer step."""
    chosen: list[float] = field(default_factory=list)
    """Mean log-probability of a step's chosen answers, summed over their tokens."""
    outside: float | None = None
    """Share of the time that was spent outside forward, backward and optimizer."""


def main(one_pass: Callable[[Job, str], Pass], packages: Iterable[str]) -> None:
    """Runs the passes of the job that the command line names."""

    def run(job: Job) -> dict[str, Any]:
        worker.limit_memory(job)
        passes = []
        for rows in job.rows:
            passes.append(asdict(one_pass(job, rows)))
            gc.collect()  # lest the model of one pass still counts in the next
            with contextlib.suppress(OSError, AttributeError):
                ctypes.CDLL(None).malloc_trim(0)
        return {"passes": passes}

    worker.main(run, packages)


def read_chats(job: Job, path: str) -> list[Row]:
    """The rows of a pass as conversations: `prompt`, and one or two answers as messages."""
    keys = ("completion",) if job.kind == "sft" else ("chosen", "rejected")
    return [
        row | {key: [{"role": "assistant", "content": row[key]}] for key in keys}
        for row in read_rows(path)
    ]


def trainer_arguments(job: Job, packing: str) -> dict[str, Any]:
    """Arguments of a peer's Trainer; `packing` names its option that fills a forward."""
    forward = job.options.get("per_device_train_batch_size", 8)
    if job.options.get(packing):
        forward *= job.max_length / job.tokens_per_row
    return {
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": max(1, round(job.batch / forward)),
        "learning_rate": job.lr,
        "lr_scheduler_type": "constant",
        "num_train_epochs": 1,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": job.device == "cpu",
        "dataloader_pin_memory": job.device == "cuda",
        **job.options,
    }


def pass_timer(timed: Pass, device: str) -> Any:
    """A callback of transformers' Trainer that fills in the times and logs of a pass."""
    from transformers import TrainerCallback

    class PassTimer(TrainerCallback):
        start = 0.0

        def on_epoch_begin(self, *_: Any, **__: Any) -> None:
            self.start = synchronized_time(device)

        def on_step_end(self, *_: Any, **__: Any) -> None:
            timed.seconds = synchronized_time(device) - self.start
            timed.steps += 1

        def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
            for found, key in ((timed.loss, "loss"), (timed.chosen, "logps/chosen")):
                if key in logs:
                    found.append(logs[key])

    return PassTimer()


def counting_step(trainer: Any, timed: Pass) -> Callable[..., Any]:
    """The training step of a Trainer class, which adds what it supervises to a pass."""
    step = trainer.training_step

    def training_step(
        self: Any, model: Any, inputs: dict[str, Any], *args: Any, **more: Any
    ) -> Any:
        mask = inputs.get("completion_mask")
        mask = inputs["labels"] != -100 if mask is None else mask
        timed.supervised += int(mask.sum())
        return step(self, model, inputs, *args, **more)

    return training_step
