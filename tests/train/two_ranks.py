"""Two ranks that train tiny models together, for the tests of distributed training.

Each writes the result of a check to FOLDER/<check>-<rank>.json.
"""

import hashlib
import json
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save_file

from tests import tiny
from tests.command_process import FORKSERVER
from zephyr.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from zephyr.distributed.rendezvous import RankEnv, Rendezvous, rank_envs
from zephyr.errors import ZephyrError
from zephyr.model import adapter
from zephyr.recipe.training import Align, Lora, Optimization
from zephyr.train.loop import ExampleSplit, LoopOptions, RunInterrupted, train
from zephyr.train.objectives import PreferenceLoss, TokenLoss
from zephyr.train.reference import compute_reference_logprobs

EXAMPLES = [f for f in tiny.random_examples(count=60) if len(f.completions) == 2][:12]
REFERENCE_LOGPROBS = np.random.default_rng(0).normal(-30, 3, (len(EXAMPLES), 2)).astype(np.float32)

CHECKS = {
    "sft": {},
    "dpo": {"dpo": True, "lora": True},
    "interrupted": {"stop_step": 3},
    "corrupted": {"stop_step": 3, "corrupt_checkpoint": True},
    "failing": {"fail_rank_1": True},
    "sharded": {"is_sharded": True},
    "sharded dpo": {"is_sharded": True, "dpo": True, "lora": True},
    "sharded interrupted": {"is_sharded": True, "stop_step": 2},
}
"""By name: `is_sharded` of `ProcessGroup`, and the arguments of `train_tiny_model`."""


def train_tiny_model(
    folder: Path,
    group: ProcessGroup = SINGLE_PROCESS,
    *,
    dpo: bool = False,
    lora: bool = False,
    stop_step: int | None = None,
    corrupt_checkpoint: bool = False,
    fail_rank_1: bool = False,
) -> dict[str, Any]:
    """Trains 13 examples, 4 a step and one in the last.

    Returns a digest of the weights, the reference log-probabilities and the messages. Before step
    `stop_step` it is interrupted, then resumed, with `corrupt_checkpoint` from a corrupted
    checkpoint; with `fail_rank_1` rank 1 raises an error.
    """
    model = tiny.make_model("qwen2")
    if lora:
        model.peft_model = adapter.add_trainable_adapter(model.causal, None, Lora(), 1)
    else:
        model.causal.requires_grad_(True)
    spec = Optimization(data="d", batch=4, lr=1e-3, log_every=2, epochs=13 / 12, evaluate_every=2)
    step_counter = iter(range(100))

    def should_stop() -> bool:
        step = next(step_counter)
        if fail_rank_1 and step == 2 and not group.is_main:
            raise ZephyrError("the disk is full", where="here")
        return step == stop_step and group.is_main

    messages: list[str] = []
    options = LoopOptions(
        "tree", 80, checkpoint_every=2, should_stop=should_stop, notify=messages.append, group=group
    )
    data = ExampleSplit(
        EXAMPLES,
        PreferenceLoss(Align(data="d", beta=0.5), REFERENCE_LOGPROBS) if dpo else TokenLoss(),
    )
    folder.mkdir(exist_ok=True, parents=True)
    sums = compute_reference_logprobs(
        model, "m", EXAMPLES, folder / "reference.safetensors", group=group
    )
    try:
        train(model.network, data, data, spec, seed=1, folder=folder, options=options)
    except RunInterrupted:
        assert stop_step is not None
        if corrupt_checkpoint and group.is_main:
            (folder / f"checkpoints/step-{stop_step:08d}/optimizer.safetensors").write_bytes(b"")
        group.all_reduce_any(False)  # the checkpoint is written
        return train_tiny_model(folder, group, dpo=dpo, lora=lora)
    weights = {n: p.detach() for n, p in model.causal.named_parameters() if p.requires_grad}
    if group.is_main:
        save_file({n: w.contiguous() for n, w in weights.items()}, folder / "weights.safetensors")
    digest = hashlib.sha256()
    for weight in weights.values():
        digest.update(weight.numpy().tobytes())
    return {"digest": digest.hexdigest(), "reference": sums.tolist(), "messages": messages}


def run_rank(folder: Path, rank_env: RankEnv) -> None:
    """Runs all checks as one rank."""
    rendezvous = Rendezvous(rank_env)
    for name, arguments in CHECKS.items():
        if rendezvous.rank == 0:
            rendezvous.send(name)
        else:
            assert rendezvous.receive() == name
        options: dict[str, Any] = dict(arguments)
        is_sharded = options.pop("is_sharded", False)
        check_folder = folder / name
        try:
            with rendezvous.process_group(2, is_sharded=is_sharded) as group:
                result = train_tiny_model(check_folder, group, **options)
        except ZephyrError as error:
            result = {"error": str(error)}
        (folder / f"{name}-{rendezvous.rank}.json").write_text(json.dumps(result))


def run_both_ranks(folder: Path) -> None:
    """Runs both ranks to their ends."""
    rank_0 = FORKSERVER.Process(target=_run_rank_0, args=(folder,))
    rank_0.start()
    rank_0.join(timeout=200)
    assert rank_0.exitcode == 0


def _run_rank_0(folder: Path) -> None:
    first, second = rank_envs(2)
    rank_1 = multiprocessing.get_context("fork").Process(target=run_rank, args=(folder, second))
    rank_1.start()
    run_rank(folder, first)
    rank_1.join()
