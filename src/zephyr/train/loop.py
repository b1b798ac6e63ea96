"""The one training loop: for `pretrain`, `tune` and `align` alike.

A step takes `batch` examples, cuts them into forwards by a token budget, divides every summed loss
by the weight of the whole batch, clips, and moves the weights. The cut changes nothing but speed.

Several processes share out each batch, sum their gradients, and all make the same step.
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

from zephyr.distributed.process_group import ALONE, Group
from zephyr.errors import ZephyrError
from zephyr.model.fork import Fork
from zephyr.model.layout import Layout, lay_out
from zephyr.model.logprobs import spread
from zephyr.recipe.training import Optimization
from zephyr.runs.store import full_disk_explained
from zephyr.train import checkpoint
from zephyr.train.forwards import forwards
from zephyr.train.keep import Best
from zephyr.train.objectives import Objective
from zephyr.train.shard import divide, put_together, whole

Watch = Callable[[int], dict[str, Any]]
"""Looks at the network after a number of steps, and gives a row for the metrics."""


class Interrupted(Exception):
    """Training was asked to stop, and has written down what it needs to go on from there."""


class Split(NamedTuple):
    """Examples and what is asked of them.

    `start` [examples, continuations] holds the summed log-probabilities before the first step,
    where they are known: what is measured against them starts at exactly nothing.
    """

    forks: Sequence[Fork]
    objective: Objective
    start: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Pace:
    """How the machine is used, and how the world outside is heard: nothing that changes a result.

    `progress(step, steps, row)` is called after each logged step; `stop()` is asked at each step;
    `tell(text)` hears what a person has to know.
    """

    layout: Layout
    token_budget: int
    checkpoint_every: int
    progress: Callable[[int, int, dict[str, Any]], None] = lambda step, steps, row: None
    stop: Callable[[], bool] = lambda: False
    tell: Callable[[str], None] = lambda text: None
    group: Group = ALONE


def steps_of(spec: Optimization, examples: int) -> int:
    """Optimizer steps of a run: as given, or enough for all epochs (the last may be partial)."""
    return spec.steps or math.ceil(examples * spec.epochs / spec.batch)


def learning_rate(spec: Optimization, step: int, steps: int) -> float:
    """The rate of optimizer step `step`, counted from 0: linear warm-up, then the schedule."""
    if step < spec.warmup:
        return spec.lr * (step + 1) / spec.warmup
    done = (step - spec.warmup) / max(1, steps - spec.warmup)
    shape = {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}
    return spec.lr * shape[spec.schedule]


def members_of(spec: Optimization, seed: int, step: int, examples: int) -> list[int]:
    """The examples of a step: consecutive ones of a shuffled stream, reshuffled every epoch."""
    total = spec.steps * spec.batch if spec.steps else math.floor(examples * spec.epochs)
    stream = range(step * spec.batch, min((step + 1) * spec.batch, total))
    orders = {e: _order(seed, e, examples) for e in {k // examples for k in stream}}
    return [int(orders[k // examples][k % examples]) for k in stream]


def _order(seed: int, epoch: int, examples: int) -> Any:
    key = (seed, epoch, examples)
    if key not in _ORDERS:
        _ORDERS.clear()
        _ORDERS[key] = np.random.default_rng([seed, epoch]).permutation(examples)
    return _ORDERS[key]


_ORDERS: dict[tuple[int, int, int], Any] = {}


def train(
    network: nn.Module,
    examples: Split,
    holdout: Split | None,
    spec: Optimization,
    *,
    seed: int,
    folder: Path,
    pace: Pace,
    watch: Watch | None = None,
) -> int:
    """Trains the weights of `network` that require a gradient; goes on where it was stopped.

    Writes `metrics.jsonl` and `checkpoints/` in `folder`, if it is the main process of its group.
    `watch` is asked beside the hold-out: before the first step, every `evaluate_every` steps, and
    at the end. Gives the step whose weights the network ends with, by `spec.keep`.

    Raises:
        Interrupted: `pace.stop()` said so.
        ZephyrError: the loss is no longer a number.
    """
    return _Trainer(network, examples, holdout, spec, seed, folder, pace, watch).run()


@dataclass
class _Trainer:
    network: nn.Module
    examples: Split
    holdout: Split | None
    spec: Optimization
    seed: int
    folder: Path
    pace: Pace
    watch: Watch | None
    window: dict[str, float] = field(default_factory=dict)
    """Sums since the last logged step."""
    best: Best | None = None

    def run(self) -> int:
        from accelerate import Accelerator

        spec, count = self.spec, len(self.examples.forks)
        steps = steps_of(spec, count)
        if self.pace.group.divides:
            divide(self.network)
        weights = {n: p for n, p in self.network.named_parameters() if p.requires_grad}
        if spec.keep != "last":
            self.best = Best(spec.keep, weights)
        self.accelerator = Accelerator()
        optimizer = torch.optim.AdamW(
            weights.values(),
            lr=spec.lr,
            betas=(0.9, spec.beta2),
            weight_decay=spec.weight_decay,
            fused=True,
        )
        network = self.accelerator.prepare(self.network)
        with full_disk_explained(self.folder), self._open_log() as log:
            first = self._resume(weights, optimizer, log)
            if first is None:
                self._look(network, log, 0)
            start = time.monotonic()
            for step in range(first or 0, steps):
                if self.pace.group.any(self.pace.stop()):
                    self._save(step, weights, optimizer, log)
                    raise Interrupted
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(spec, step, steps)
                norm = self._step(network, optimizer, step, list(weights.values()))
                done = step + 1
                if done % spec.log_every == 0 or done == steps:
                    self._log(log, done, steps, optimizer, norm, time.monotonic() - start)
                    start = time.monotonic()
                at_end = done == steps
                if at_end or (spec.evaluate_every and done % spec.evaluate_every == 0):
                    self._look(network, log, done)
                    start = time.monotonic()
                if done % self.pace.checkpoint_every == 0 and not at_end:
                    self._save(done, weights, optimizer, log)
        if self.pace.group.divides:
            put_together(self.network)
        if self.best is None:
            return steps
        self.best.put_back()
        return self.best.step

    def _open_log(self) -> IO[bytes]:
        if self.pace.group.is_main:
            return (self.folder / "metrics.jsonl").open("ab")
        return tempfile.TemporaryFile()

    def _forwards(self, forks: Sequence[Fork]) -> Iterator[tuple[list[int], int]]:
        pace = self.pace
        return forwards(forks, pace.token_budget, pace.layout, pace.group)

    def _step(
        self, network: nn.Module, optimizer: torch.optim.Optimizer, step: int, weights: list[Tensor]
    ) -> float:
        """One optimizer step; returns the gradient's norm before clipping."""
        group = self.pace.group
        torch.manual_seed((self.seed << 32) + (group.rank << 24) + step)
        network.train()
        members = members_of(self.spec, self.seed, step, len(self.examples.forks))
        forks = [self.examples.forks[i] for i in members]
        weight = self.examples.objective.weight(forks)
        if not group.is_main:
            self.window = dict.fromkeys(self.window, 0.0)  # the main process counts what was before
        self._add("weight", weight * group.is_main)
        self._add("examples", len(forks) * group.is_main)
        for part, counts in self._forwards(forks):
            batch = lay_out([forks[i] for i in part], self.pace.layout)
            batch = batch.to(self.accelerator.device)
            terms = self.examples.objective.terms(network(batch), batch, [members[i] for i in part])
            self.accelerator.backward(terms.loss / weight * counts)
            self._add("loss", float(terms.loss.detach()) * counts)
            self._add("tokens", sum(forks[i].length for i in part) * counts)
            for name, value in terms.stats.items():
                self._add(f"stat:{name}", value * counts)
        self.window = group.sum(self.window)
        if not group.divides:
            group.sum_gradients(weights)
        norm = float(whole(torch.nn.utils.clip_grad_norm_(weights, self.spec.clip)))
        if not math.isfinite(norm + self.window["loss"]):
            raise ZephyrError(
                "the loss is no longer a number",
                where=f"step {step + 1}",
                todo="lower `lr`, or lengthen `warmup`",
            )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return norm

    def _add(self, name: str, value: float) -> None:
        self.window[name] = self.window.get(name, 0.0) + value

    def _log(
        self,
        log: IO[bytes],
        done: int,
        steps: int,
        optimizer: torch.optim.Optimizer,
        norm: float,
        seconds: float,
    ) -> None:
        row = _row(done, "train", self.window) | {
            "lr": optimizer.param_groups[0]["lr"],
            "grad_norm": norm,
            "tokens": int(self.window["tokens"]),
            "seconds": round(seconds, 4),
            "tokens_per_second": round(self.window["tokens"] / max(seconds, 1e-9), 1),
        }
        self.window = {}
        _append(log, row)
        self.pace.progress(done, steps, row)

    def _look(self, network: nn.Module, log: IO[bytes], done: int) -> None:
        """What is to be seen after `done` steps: the hold-out, and what else is watched."""
        if self.holdout:
            row = self._evaluate(network, done)
            _append(log, row)
            if self.best is not None:
                self.best.see(row)
        if self.watch is not None:
            _append(log, self.watch(done))

    @torch.no_grad()
    def _evaluate(self, network: nn.Module, done: int) -> dict[str, Any]:
        """The objective on the hold-out."""
        assert self.holdout is not None
        network.eval()
        forks, objective, start = self.holdout
        sums: dict[str, float] = {"loss": 0.0}
        for part, counts in self._forwards(forks):
            batch = lay_out([forks[i] for i in part], self.pace.layout)
            batch = batch.to(self.accelerator.device)
            if done == 0 and start is not None:
                logprobs = spread(torch.from_numpy(start[part]), batch)
            else:
                logprobs = network(batch)
            terms = objective.terms(logprobs, batch, part)
            sums["loss"] += float(terms.loss) * counts
            for name, value in terms.stats.items():
                sums[f"stat:{name}"] = sums.get(f"stat:{name}", 0.0) + value * counts
        sums = self.pace.group.sum(sums)
        sums |= {"weight": objective.weight(forks), "examples": len(forks)}
        return _row(done, "holdout", sums)

    def _save(
        self,
        step: int,
        weights: dict[str, nn.Parameter],
        optimizer: torch.optim.Optimizer,
        log: IO[bytes],
    ) -> None:
        log.flush()
        os.fsync(log.fileno())  # the checkpoint counts on what has been logged
        checkpoint.save(
            self.folder / "checkpoints",
            step,
            self._kept(weights),
            optimizer,
            metrics_bytes=log.tell(),
            window=self.window,
            write=self.pace.group.is_main,
        )

    def _resume(
        self, weights: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer, log: IO[bytes]
    ) -> int | None:
        """The step after which a checkpoint goes on; None where nothing has been done yet."""
        checkpoints, group = self.folder / "checkpoints", self.pace.group
        logged = group.share(log.tell())
        resumed = checkpoint.resume(checkpoints, self._kept(weights), optimizer, logged, group)
        log.truncate(resumed.metrics_bytes)
        log.seek(0, 2)
        self.window = resumed.window
        group.refuse_different(resumed.step, () if group.divides else weights.values())
        goes_on = f"goes on from step {resumed.step}" if resumed.step else "starts over"
        for damaged in resumed.damaged:
            self.pace.tell(f"a checkpoint can't be used ({damaged}): training {goes_on}")
        return resumed.step if resumed.step or resumed.metrics_bytes else None

    def _kept(self, weights: dict[str, nn.Parameter]) -> dict[str, Tensor]:
        """The weights of a checkpoint: as they are, and where they were best."""
        return {**weights, **(self.best.state if self.best is not None else {})}


def _row(step: int, split: str, sums: dict[str, float]) -> dict[str, Any]:
    stats = {
        name.removeprefix("stat:"): value / sums["examples"]
        for name, value in sums.items()
        if name.startswith("stat:")
    }
    return {"step": step, "split": split, "loss": sums["loss"] / sums["weight"], **stats}


def _append(log: IO[bytes], row: dict[str, Any]) -> None:
    log.write(json.dumps(row).encode() + b"\n")
    log.flush()
