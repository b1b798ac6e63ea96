"""Two processes that train tiny models together, as the tests of them ask.

Each writes what a check gives to FOLDER/<check>-<rank>.json.
"""

import hashlib
import json
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save_file

from tests import tiny
from tests.commands import FORKED
from zephyr.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from zephyr.distributed.rendezvous import RankEnv, Rendezvous, rank_envs
from zephyr.errors import ZephyrError
from zephyr.model import adapter
from zephyr.recipe.training import Align, Lora, Optimization
from zephyr.train.loop import ExampleSplit, LoopOptions, RunInterrupted, train
from zephyr.train.objectives import PreferenceLoss, TokenLoss
from zephyr.train.reference import compute_reference_logprobs

FORKS = [f for f in tiny.examples(count=60) if len(f.completions) == 2][:12]
REFERENCE = np.random.default_rng(0).normal(-30, 3, (len(FORKS), 2)).astype(np.float32)

CHECKS = {
    "language": {},
    "dpo": {"dpo": True, "lora": True},
    "cut": {"stop": 3},
    "damaged": {"stop": 3, "damage": True},
    "failing": {"fails": True},
    "divided": {"divides": True},
    "divided dpo": {"divides": True, "dpo": True, "lora": True},
    "divided cut": {"divides": True, "stop": 2},
}
"""By name; `divides` as in `Group`, the rest as `trained` takes it."""


def trained(
    folder: Path,
    group: ProcessGroup = SINGLE_PROCESS,
    *,
    dpo: bool = False,
    lora: bool = False,
    stop: int | None = None,
    damage: bool = False,
    fails: bool = False,
) -> dict[str, Any]:
    """Trains 13 examples, 4 a step and one in the last.

    Gives a digest of the weights, the sums of a reference found before, and what was told. `stop`
    interrupts before that step, then goes on, with `damage` after its checkpoint was damaged; with
    `fails` the second process fails.
    """
    model = tiny.make_model("qwen2")
    if lora:
        model.peft_model = adapter.add_trainable_adapter(model.causal, None, Lora(), 1)
    else:
        model.causal.requires_grad_(True)
    spec = Optimization(data="d", batch=4, lr=1e-3, log_every=2, epochs=13 / 12, evaluate_every=2)
    asked = iter(range(100))

    def stopped() -> bool:
        step = next(asked)
        if fails and step == 2 and not group.is_main:
            raise ZephyrError("the disk is full", where="here")
        return step == stop and group.is_main

    told: list[str] = []
    pace = LoopOptions(
        "tree", 80, checkpoint_every=2, should_stop=stopped, notify=told.append, group=group
    )
    data = ExampleSplit(
        FORKS, PreferenceLoss(Align(data="d", beta=0.5), REFERENCE) if dpo else TokenLoss()
    )
    folder.mkdir(exist_ok=True, parents=True)
    sums = compute_reference_logprobs(
        model, "m", FORKS, folder / "reference.safetensors", group=group
    )
    try:
        train(model.network, data, data, spec, seed=1, folder=folder, options=pace)
    except RunInterrupted:
        assert stop is not None
        if damage and group.is_main:
            (folder / f"checkpoints/step-{stop:08d}/optimizer.safetensors").write_bytes(b"")
        group.all_reduce_any(False)  # the checkpoint is written
        return trained(folder, group, dpo=dpo, lora=lora)
    weights = {n: p.detach() for n, p in model.causal.named_parameters() if p.requires_grad}
    if group.is_main:
        save_file({n: w.contiguous() for n, w in weights.items()}, folder / "weights.safetensors")
    digest = hashlib.sha256()
    for weight in weights.values():
        digest.update(weight.numpy().tobytes())
    return {"digest": digest.hexdigest(), "reference": sums.tolist(), "told": told}


def part(folder: Path, seat: RankEnv) -> None:
    """What one process does."""
    channel = Rendezvous(seat)
    for name, wanted in CHECKS.items():
        if channel.rank == 0:
            channel.send(name)
        else:
            assert channel.receive() == name
        options: dict[str, Any] = dict(wanted)
        divides = options.pop("divides", False)
        place = folder / name
        try:
            with channel.process_group(2, is_sharded=divides) as group:
                result = trained(place, group, **options)
        except ZephyrError as error:
            result = {"error": str(error)}
        (folder / f"{name}-{channel.rank}.json").write_text(json.dumps(result))


def together(folder: Path) -> None:
    """Both processes, to their ends."""
    first = FORKED.Process(target=_lead, args=(folder,))
    first.start()
    first.join(timeout=200)
    assert first.exitcode == 0


def _lead(folder: Path) -> None:
    first, second = rank_envs(2)
    other = multiprocessing.get_context("fork").Process(target=part, args=(folder, second))
    other.start()
    part(folder, first)
    other.join()
