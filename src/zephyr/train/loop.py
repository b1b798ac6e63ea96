"""The training loop: AdamW, gradient accumulation and clipping, LR schedule, eval, checkpoints.

An optimizer step takes `batch` examples, splits them into micro-batches by a token budget, divides
every summed loss by the loss denominator of the whole batch, accumulates and clips gradients, and
updates the weights. The split into micro-batches changes nothing but speed.

With several ranks (data parallelism), each takes a part of every batch; gradients are all-reduced,
and all ranks make the same optimizer step.
"""

import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from zephyr.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from zephyr.errors import ZephyrError
from zephyr.model.batching import Layout, collate
from zephyr.model.example import Example
from zephyr.model.logprobs import scatter_sums
from zephyr.recipe.training import Optimization
from zephyr.runs.context import Progress
from zephyr.runs.store import explain_disk_errors
from zephyr.system.devices import unused_accelerator
from zephyr.train import checkpoint
from zephyr.train.best_checkpoint import BestCheckpoint
from zephyr.train.fsdp import gather_full, shard, unshard
from zephyr.train.micro_batches import micro_batches
from zephyr.train.objectives import Objective

EvalCallback = Callable[[int], dict[str, Any] | None]
"""Evaluation callback: called with the number of optimizer steps done, gives a metrics row."""


class RunInterrupted(Exception):
    """Raised when a run is interrupted, after a checkpoint to resume from was saved."""


class ExampleSplit(NamedTuple):
    """A training or hold-out split: tokenized examples, and the objective that scores them.

    `initial_logprobs` [B, 2] holds the summed log-probabilities of completions before the first
    step, where they are known (reference log-probabilities): rewards then start at exactly zero.
    """

    examples: Sequence[Example]
    objective: Objective
    initial_logprobs: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class LoopOptions:
    """Training-loop options (layout, token budget, callbacks, ranks); they change no result.

    `progress(phase, done, total, row)` is called after each step (with its metrics where they are
    logged) and while the hold-out is evaluated, `should_stop()` before each step, and
    `notify(text)` with warnings for the user.
    """

    layout: Layout
    token_budget: int
    checkpoint_every: int
    progress: Progress = lambda phase, done, total, row: None
    should_stop: Callable[[], bool] = lambda: False
    notify: Callable[[str], None] = lambda text: None
    group: ProcessGroup = SINGLE_PROCESS


def count_steps(spec: Optimization, examples: int) -> int:
    """Optimizer steps of a run: `steps`, or enough for all epochs (the last may be partial)."""
    return spec.steps or math.ceil(examples * spec.epochs / spec.batch)


def learning_rate(spec: Optimization, step: int, steps: int) -> float:
    """Learning-rate schedule with linear warm-up: the rate of a step, counted from 0."""
    if step < spec.warmup:
        return spec.lr * (step + 1) / spec.warmup
    progress = (step - spec.warmup) / max(1, steps - spec.warmup)
    shape = {
        "constant": 1.0,
        "linear": 1 - progress,
        "cosine": (1 + math.cos(math.pi * progress)) / 2,
    }
    return spec.lr * shape[spec.schedule]


def batch_indices(spec: Optimization, seed: int, step: int, examples: int) -> list[int]:
    """Batch sampler: example indices of a step's batch; examples are reshuffled every epoch."""
    total = spec.steps * spec.batch if spec.steps else math.floor(examples * spec.epochs)
    positions = range(step * spec.batch, min((step + 1) * spec.batch, total))
    epoch_orders = {e: _epoch_order(seed, e, examples) for e in {k // examples for k in positions}}
    return [int(epoch_orders[k // examples][k % examples]) for k in positions]


def _epoch_order(seed: int, epoch: int, examples: int) -> Any:
    """The shuffled order of an epoch's examples; that of the last epoch is cached."""
    key = (seed, epoch, examples)
    if key not in _EPOCH_ORDERS:
        _EPOCH_ORDERS.clear()
        _EPOCH_ORDERS[key] = np.random.default_rng([seed, epoch]).permutation(examples)
    return _EPOCH_ORDERS[key]


_EPOCH_ORDERS: dict[tuple[int, int, int], Any] = {}


def train(
    network: nn.Module,
    train_split: ExampleSplit,
    holdout_split: ExampleSplit | None,
    spec: Optimization,
    *,
    seed: int,
    folder: Path,
    options: LoopOptions,
    eval_callback: EvalCallback | None = None,
) -> int:
    """Trains the weights of `network` that require a gradient; resumes from a checkpoint if any.

    Writes `metrics.jsonl` and `checkpoints/` in `folder`, if it is rank 0 of its process group.
    Evaluates on the hold-out and calls `eval_callback` before the first step, every
    `evaluate_every` steps, and at the end. Returns the step whose weights are kept (`spec.keep`).

    Raises:
        RunInterrupted: `options.should_stop()` was true; a checkpoint has been saved.
        ZephyrError: the loss is not finite (NaN or infinite).
    """
    return _Trainer(
        network, train_split, holdout_split, spec, seed, folder, options, eval_callback
    ).run()


@dataclass
class _Trainer:
    """One call of `train`: its arguments, the window of metrics and the best checkpoint."""

    network: nn.Module
    train_split: ExampleSplit
    holdout_split: ExampleSplit | None
    spec: Optimization
    seed: int
    folder: Path
    options: LoopOptions
    eval_callback: EvalCallback | None
    window: dict[str, float] = field(default_factory=dict)
    """Sums of loss, denominators and statistics since the last logged step."""
    best_checkpoint: BestCheckpoint | None = None

    def run(self) -> int:
        from accelerate import Accelerator

        spec, count = self.spec, len(self.train_split.examples)
        steps = count_steps(spec, count)
        if self.options.group.is_sharded:
            shard(self.network)
        weights = {n: p for n, p in self.network.named_parameters() if p.requires_grad}
        if spec.keep != "last":
            self.best_checkpoint = BestCheckpoint(spec.keep, weights)
        self.accelerator = Accelerator(cpu=unused_accelerator() is not None)
        optimizer = torch.optim.AdamW(
            weights.values(),
            lr=spec.lr,
            betas=(0.9, spec.beta2),
            weight_decay=spec.weight_decay,
            fused=True,
        )
        network = self.accelerator.prepare(self.network)
        with explain_disk_errors(self.folder), self._open_log() as log:
            resume_step = self._resume(weights, optimizer, log)
            if resume_step is None:
                self._evaluate(network, log, 0)
            start = time.monotonic()
            for step in range(resume_step or 0, steps):
                if self.options.group.all_reduce_any(self.options.should_stop()):
                    self._save(step, weights, optimizer, log)
                    raise RunInterrupted
                for param_group in optimizer.param_groups:
                    param_group["lr"] = learning_rate(spec, step, steps)
                grad_norm = self._step(network, optimizer, step, list(weights.values()))
                done = step + 1
                row: dict[str, Any] = {}
                if done % spec.log_every == 0 or done == steps:
                    row = self._log(log, done, optimizer, grad_norm, time.monotonic() - start)
                    start = time.monotonic()
                elif step == (resume_step or 0):  # until the first row there is a loss to show
                    row = {"loss": self.window["loss"] / self.window["weight"]}
                self.options.progress("training", done, steps, row)
                is_last = done == steps
                if is_last or (spec.evaluate_every and done % spec.evaluate_every == 0):
                    self._evaluate(network, log, done)
                    start = time.monotonic()
                if done % self.options.checkpoint_every == 0 and not is_last:
                    self._save(done, weights, optimizer, log)
        if self.options.group.is_sharded:
            unshard(self.network)
        if self.best_checkpoint is None:
            return steps
        self.best_checkpoint.restore()
        return self.best_checkpoint.step

    def _open_log(self) -> IO[bytes]:
        if self.options.group.is_main:
            return (self.folder / "metrics.jsonl").open("ab")
        return tempfile.TemporaryFile()

    def _micro_batches(self, examples: Sequence[Example]) -> Iterator[tuple[list[int], int]]:
        options = self.options
        return micro_batches(examples, options.token_budget, options.layout, options.group)

    def _step(
        self, network: nn.Module, optimizer: torch.optim.Optimizer, step: int, weights: list[Tensor]
    ) -> float:
        """One optimizer step (gradient accumulation, clipping); returns the unclipped norm."""
        group = self.options.group
        torch.manual_seed((self.seed << 32) + (group.rank << 24) + step)
        network.train()
        indices = batch_indices(self.spec, self.seed, step, len(self.train_split.examples))
        examples = [self.train_split.examples[i] for i in indices]
        loss_denominator = self.train_split.objective.loss_denominator(examples)
        if not group.is_main:
            self.window = dict.fromkeys(self.window, 0.0)  # the main process counts what was before
        self._add_to_window("weight", loss_denominator * group.is_main)
        self._add_to_window("examples", len(examples) * group.is_main)
        for micro_batch, loss_scale in self._micro_batches(examples):
            batch = collate([examples[i] for i in micro_batch], self.options.layout)
            batch = batch.to(self.accelerator.device)
            loss_terms = self.train_split.objective.compute_loss(
                network(batch), batch, [indices[i] for i in micro_batch]
            )
            self.accelerator.backward(loss_terms.loss / loss_denominator * loss_scale)
            self._add_to_window("loss", float(loss_terms.loss.detach()) * loss_scale)
            self._add_to_window(
                "tokens", sum(examples[i].tree_length for i in micro_batch) * loss_scale
            )
            for name, value in loss_terms.stats.items():
                self._add_to_window(f"stat:{name}", value * loss_scale)
        self.window = group.all_reduce_sum(self.window)
        if not group.is_sharded:
            group.all_reduce_gradients(weights)
        grad_norm = float(gather_full(torch.nn.utils.clip_grad_norm_(weights, self.spec.clip)))
        if not math.isfinite(grad_norm + self.window["loss"]):
            raise ZephyrError(
                "the loss is no longer a number",
                where=f"step {step + 1}",
                todo="lower `lr`, or lengthen `warmup`",
            )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return grad_norm

    def _add_to_window(self, name: str, value: float) -> None:
        self.window[name] = self.window.get(name, 0.0) + value

    def _log(
        self,
        log: IO[bytes],
        done: int,
        optimizer: torch.optim.Optimizer,
        grad_norm: float,
        seconds: float,
    ) -> dict[str, Any]:
        """Appends a row of training metrics, and starts a new window."""
        row = _metrics_row(done, "train", self.window) | {
            "lr": optimizer.param_groups[0]["lr"],
            "grad_norm": grad_norm,
            "tokens": int(self.window["tokens"]),
            "seconds": round(seconds, 4),
            "tokens_per_second": round(self.window["tokens"] / max(seconds, 1e-9), 1),
        }
        self.window = {}
        _append_row(log, row)
        return row

    def _evaluate(self, network: nn.Module, log: IO[bytes], done: int) -> None:
        """Evaluates after `done` steps: the hold-out, then the evaluation callback."""
        if self.holdout_split:
            row = self._evaluate_holdout(network, done)
            _append_row(log, row)
            if self.best_checkpoint is not None:
                self.best_checkpoint.update(row)
        if self.eval_callback is not None:
            self.options.progress("sample generations", 0, 0, {})
            if (found := self.eval_callback(done)) is not None:
                _append_row(log, found)

    @torch.no_grad()
    def _evaluate_holdout(self, network: nn.Module, done: int) -> dict[str, Any]:
        """Evaluation loss and statistics of the objective on the hold-out."""
        assert self.holdout_split is not None
        network.eval()
        examples, objective, initial_logprobs = self.holdout_split
        sums: dict[str, float] = {"loss": 0.0}
        evaluated = 0
        for micro_batch, loss_scale in self._micro_batches(examples):
            self.options.progress("hold-out", evaluated, len(examples), {})
            evaluated += len(micro_batch)
            batch = collate([examples[i] for i in micro_batch], self.options.layout)
            batch = batch.to(self.accelerator.device)
            if done == 0 and initial_logprobs is not None:
                logprobs = scatter_sums(torch.from_numpy(initial_logprobs[micro_batch]), batch)
            else:
                logprobs = network(batch)
            loss_terms = objective.compute_loss(logprobs, batch, micro_batch)
            sums["loss"] += float(loss_terms.loss) * loss_scale
            for name, value in loss_terms.stats.items():
                sums[f"stat:{name}"] = sums.get(f"stat:{name}", 0.0) + value * loss_scale
        sums = self.options.group.all_reduce_sum(sums)
        sums |= {"weight": objective.loss_denominator(examples), "examples": len(examples)}
        return _metrics_row(done, "holdout", sums)

    def _save(
        self,
        step: int,
        weights: dict[str, nn.Parameter],
        optimizer: torch.optim.Optimizer,
        log: IO[bytes],
    ) -> None:
        """Saves a checkpoint, after an fsync of the metrics that it counts on."""
        log.flush()
        os.fsync(log.fileno())  # the checkpoint counts on what has been logged
        checkpoint.save(
            self.folder / "checkpoints",
            step,
            self._checkpoint_tensors(weights),
            optimizer,
            metrics_bytes=log.tell(),
            window=self.window,
            write=self.options.group.is_main,
        )

    def _resume(
        self, weights: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer, log: IO[bytes]
    ) -> int | None:
        """The step of the checkpoint to resume from; None where nothing has been done yet."""
        checkpoints, group = self.folder / "checkpoints", self.options.group
        metrics_bytes = group.broadcast(log.tell())
        resumed = checkpoint.resume(
            checkpoints, self._checkpoint_tensors(weights), optimizer, metrics_bytes, group
        )
        log.truncate(resumed.metrics_bytes)
        log.seek(0, 2)
        self.window = resumed.window
        group.check_same_start(resumed.step, () if group.is_sharded else weights.values())
        outcome = f"goes on from step {resumed.step}" if resumed.step else "starts over"
        for rejected in resumed.rejected:
            self.options.notify(f"a checkpoint can't be used ({rejected}): training {outcome}")
        return resumed.step if resumed.step or resumed.metrics_bytes else None

    def _checkpoint_tensors(self, weights: dict[str, nn.Parameter]) -> dict[str, Tensor]:
        """The tensors of a checkpoint: current weights, and the best ones so far."""
        return {
            **weights,
            **(self.best_checkpoint.state if self.best_checkpoint is not None else {}),
        }


def _metrics_row(step: int, split: str, sums: dict[str, float]) -> dict[str, Any]:
    """Row of `metrics.jsonl`: mean loss and statistics from sums."""
    stats = {
        name.removeprefix("stat:"): value / sums["examples"]
        for name, value in sums.items()
        if name.startswith("stat:")
    }
    return {"step": step, "split": split, "loss": sums["loss"] / sums["weight"], **stats}


def _append_row(log: IO[bytes], row: dict[str, Any]) -> None:
    log.write(json.dumps(row).encode() + b"\n")
    log.flush()
