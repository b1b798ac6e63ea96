"""Zephyr worker: trains as a run does, without the files of a run."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from bench.shared.worker import Job, read_rows, synchronized_time
from bench.training.job import Pass, main
from zephyr.data.mixture import RecordSplit
from zephyr.model import adapter, precision
from zephyr.model.load import Lineage, load_model, silence_libraries
from zephyr.recipe.machine import RunSettings
from zephyr.recipe.training import Align, Lora, Tune
from zephyr.records import Chat, Message, Pair, Record
from zephyr.train import budget
from zephyr.train.examples import build_examples
from zephyr.train.loop import ExampleSplit, LoopOptions, train
from zephyr.train.objectives import Objective, PreferenceLoss, TokenLoss
from zephyr.train.reference import compute_reference_logprobs

NEVER = 1_000_000


def one_pass(job: Job, path: str) -> Pass:
    silence_libraries()
    timed = Pass()
    settings = RunSettings(**job.options)
    dtype = precision.choose_dtype(settings.dtype, Path(job.model))
    model = load_model(
        Lineage(job.model), Path("/"), token_budget=1024, dtype=dtype, form="adapter-training"
    )
    targets = job.targets if isinstance(job.targets, str) else tuple(job.targets)
    lora = Lora(rank=job.rank, alpha=job.alpha, targets=targets)
    spec = {
        "data": "rows",
        "epochs": 1,
        "batch": job.batch,
        "lr": job.lr,
        "schedule": "constant",
        "log_every": 1,
        "max_length": job.max_length,
        "lora": lora,
    }
    stage = Tune(**spec) if job.kind == "sft" else Align(**spec, beta=job.beta)
    records = RecordSplit([_record(row) for row in read_rows(path)], [])
    examples = build_examples(model.template, records, stage, model.context_length).train
    folder = Path(job.folder) / Path(path).stem
    folder.mkdir()
    objective: Objective = TokenLoss()
    if isinstance(stage, Align):
        start = synchronized_time(job.device)
        sums = compute_reference_logprobs(model, "base", examples, folder / "reference.safetensors")
        timed.reference_seconds = synchronized_time(job.device) - start
        objective = PreferenceLoss(stage, sums)
    timed.supervised = sum(example.num_loss_tokens for example in examples)
    model.peft_model = adapter.add_trainable_adapter(model.causal, model.peft_model, lora, 0)
    token_budget = budget.choose_token_budget(model, examples, 1, settings.token_budget).tokens
    starts: list[float] = []

    def should_stop() -> bool:
        """Called at the start of every step."""
        if not starts:
            starts.append(synchronized_time(job.device))
        return False

    def progress(phase: str, step: int, steps: int, row: dict[str, Any]) -> None:
        if phase != "training":
            return
        timed.seconds = synchronized_time(job.device) - starts[0]
        timed.steps = step
        timed.loss.append(row["loss"])
        if "chosen_logprob" in row:
            timed.chosen.append(row["chosen_logprob"])

    with _compute_seconds(model.network, job.device) as compute:
        train(
            model.network,
            ExampleSplit(examples, objective),
            None,
            stage,
            seed=0,
            folder=folder,
            options=LoopOptions(model.layout, token_budget, NEVER, progress, should_stop),
        )
    timed.outside = 1 - sum(compute) / timed.seconds
    return timed


def _record(row: dict[str, Any]) -> Record:
    prompt = tuple(Message(**message) for message in row["prompt"])
    if "completion" in row:
        return Chat("rows", (*prompt, Message("assistant", row["completion"])))
    return Pair("rows", prompt, row["chosen"], row["rejected"])


@contextlib.contextmanager
def _compute_seconds(network: torch.nn.Module, device: str) -> Iterator[list[float]]:
    """The seconds of each forward, backward and optimizer step."""
    seconds: list[float] = []
    start = 0.0
    whole = torch.autograd.backward

    def begin(*_: Any) -> None:
        nonlocal start
        start = synchronized_time(device)

    def end(*_: Any) -> None:
        seconds.append(synchronized_time(device) - start)

    def backward(*arguments: Any, **more: Any) -> None:
        begin()
        whole(*arguments, **more)
        end()

    hooks = [
        network.register_forward_pre_hook(begin),
        network.register_forward_hook(end),
        register_optimizer_step_pre_hook(begin),
        register_optimizer_step_post_hook(end),
    ]
    try:
        with patch.object(torch.autograd, "backward", backward):
            yield seconds
    finally:
        for hook in hooks:
            hook.remove()


if __name__ == "__main__":
    main(one_pass, ("torch", "transformers", "peft"))
