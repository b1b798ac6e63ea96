"""Zephyr: as a run trains, without the files of a run."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from bench.contenders.job import Job, Pass, main, now, read_rows
from zephyr.data.mixture import RecordSplit as Records
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
    kept = Pass()
    settings = RunSettings(**job.options)
    folder = Path(job.model)
    dtype = precision.choose_dtype(settings.dtype, folder)
    model = load_model(Lineage(job.model), Path("/"), token_budget=1024, dtype=dtype, form="adapts")
    targets = job.targets if isinstance(job.targets, str) else tuple(job.targets)
    spec = {
        "data": "rows",
        "epochs": 1,
        "batch": job.batch,
        "lr": job.lr,
        "schedule": "constant",
        "log_every": 1,
        "max_length": job.max_length,
        "lora": Lora(rank=job.rank, alpha=job.alpha, targets=targets),
    }
    records = [_record(row) for row in read_rows(path)]
    stage = Tune(**spec) if job.kind == "sft" else Align(**spec, beta=job.beta)
    forks = build_examples(model.template, Records(records, []), stage, model.context_length).train
    place = Path(job.folder) / Path(path).stem
    place.mkdir()
    objective: Objective = TokenLoss()
    if isinstance(stage, Align):
        start = now(job.device)
        sums = compute_reference_logprobs(model, "base", forks, place / "reference.safetensors")
        kept.reference_seconds = now(job.device) - start
        objective = PreferenceLoss(stage, sums)
    kept.supervised = sum(f.num_loss_tokens for f in forks)
    lora = stage.lora
    assert isinstance(lora, Lora)
    model.peft_model = adapter.add_trainable_adapter(model.causal, model.peft_model, lora, 0)

    cut = budget.choose_token_budget(model, forks, 1, settings.token_budget)
    began: list[float] = []

    def stop() -> bool:
        """Asked at the start of every step."""
        if not began:
            began.append(now(job.device))
        return False

    def progress(phase: str, step: int, steps: int, row: dict[str, Any]) -> None:
        kept.seconds = now(job.device) - began[0]
        kept.steps = step
        kept.loss.append(row["loss"])
        if "chosen_logprob" in row:
            kept.chosen.append(row["chosen_logprob"])

    with _inside(model.network, job.device) as inside:
        train(
            model.network,
            ExampleSplit(forks, objective),
            None,
            stage,
            seed=0,
            folder=place,
            options=LoopOptions(model.layout, cut.tokens, NEVER, progress, stop),
        )
    kept.outside = 1 - inside[0] / kept.seconds
    return kept


def _record(row: dict[str, Any]) -> Record:
    prompt = tuple(Message(**message) for message in row["prompt"])
    if "completion" in row:
        return Chat("rows", (*prompt, Message("assistant", row["completion"])))
    return Pair("rows", prompt, row["chosen"], row["rejected"])


@contextlib.contextmanager
def _inside(network: torch.nn.Module, device: str) -> Iterator[list[float]]:
    """Adds up the seconds of forward, backward and optimizer."""
    total = [0.0]
    began = [0.0]
    whole = torch.autograd.backward

    def start(*_: Any) -> None:
        began[0] = now(device)

    def end(*_: Any) -> None:
        total[0] += now(device) - began[0]

    def backward(*arguments: Any, **more: Any) -> None:
        start()
        whole(*arguments, **more)
        end()

    hooks = [
        network.register_forward_pre_hook(start),
        network.register_forward_hook(end),
        register_optimizer_step_pre_hook(start),
        register_optimizer_step_post_hook(end),
    ]
    torch.autograd.backward = backward
    try:
        yield total
    finally:
        torch.autograd.backward = whole
        for hook in hooks:
            hook.remove()


if __name__ == "__main__":
    main(one_pass, ("torch", "transformers", "peft"))
