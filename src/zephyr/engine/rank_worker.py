"""Rank worker: a process of rank > 0 in distributed training; rank 0 alone writes files.

It exits when rank 0 says so or exits itself. Its failures are reported by rank 0.
"""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from zephyr.distributed.rendezvous import RankEnv, Rendezvous
from zephyr.engine.worker import (
    DEFAULT_TOKEN_BUDGET,
    Job,
    exit_with_parent,
    ignore_signals,
    set_thread_environment,
)
from zephyr.recipe.schema import Recipe
from zephyr.runs.context import Context
from zephyr.runs.store import Store
from zephyr.system.memory import release_memory


def run_rank_worker(rank_env: RankEnv | None = None) -> None:
    """Rank-worker loop: joins the rendezvous, then runs its rank of every training of rank 0."""
    ignore_signals()  # rank 0 stops all ranks at the same step
    exit_with_parent()
    set_thread_environment()
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # that rank 0 exits is expected
    from zephyr.model.load import silence_libraries

    silence_libraries()
    rendezvous = Rendezvous(rank_env)
    while (message := rendezvous.receive()) is not None:
        if rendezvous.rank < message["env"]["processes"]:
            with contextlib.suppress(Exception):  # the rendezvous reports it to rank 0
                _run_message(message, rendezvous)
            release_memory()


def _run_message(message: Any, rendezvous: Rendezvous) -> None:
    """Runs the training job in a message of rank 0, as one rank of its process group."""
    import torch

    from zephyr.engine.stages import run_stage

    env, job = message["env"], Job.from_json(message["job"])
    torch.set_num_threads(env["threads"])
    store = Store(Path(message["store"]))
    recipe = Recipe.model_validate(message["recipe"])
    with rendezvous.process_group(env["processes"], is_sharded=env["shard"]) as group:

        def resolve_once(name: str, compute: Callable[[], Any]) -> Any:
            return group.broadcast(None)  # what rank 0 has resolved

        context = Context(
            recipe,
            Path(message["folder"]),
            store.root,
            recipe.run.token_budget or DEFAULT_TOKEN_BUDGET,
            resolve_once=resolve_once,
            group=group,
        )
        inputs = {role: store.find(fingerprint) for role, fingerprint in job.inputs.items()}
        run_stage(job.node, inputs, store.find(job.node.fingerprint), context)
