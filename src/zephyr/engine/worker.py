"""Worker process: makes the runs of nodes, one after another, as the scheduler asks.

It ends when its parent does, however that ends; what it was writing stays unfinished and is taken
up by the next run.
"""

import contextlib
import gc
import os
import re
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from zephyr.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from zephyr.distributed.rendezvous import RankEnv, Rendezvous
from zephyr.engine.environment import (
    current_environment,
    environment_changes,
    load_or_create_environment,
)
from zephyr.errors import ZephyrError
from zephyr.recipe.schema import Recipe
from zephyr.runs.graph import Node
from zephyr.runs.store import Run, Store, explain_disk_errors, write_json
from zephyr.system.energy import EnergyMeter
from zephyr.system.memory import release_memory

TOKEN_BUDGET = 4096
"""Tokens of one forward where nothing is trained, unless the recipe fixes them."""

TRAINING_KINDS = ("pretrain", "tune", "align")
"""Node kinds that several processes train together."""


@dataclass(frozen=True)
class Job:
    """One node to be made, the fingerprints of its input runs, and its number of threads."""

    node: Node
    inputs: dict[str, str]
    threads: int

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> "Job":
        """The job that `asdict` turned into JSON values."""
        return cls(Node(**row["node"]), row["inputs"], row["threads"])


@dataclass(frozen=True)
class WorkerMessage:
    """A worker's message: `state` is progress, told, done, failed, broken or stopped.

    A failure is the user's or the world's; broken is a defect of this program. A `told` message is
    for a person to know, and stays with the run.
    """

    node: str
    state: str
    done: int = 0
    total: int = 0
    row: dict[str, Any] | None = None
    text: str = ""

    @property
    def is_final(self) -> bool:
        """Whether it is the last message about its node."""
        return self.state not in ("progress", "told")


def run_worker(
    connection: Connection,
    stop_event: Event,
    recipe: Recipe,
    folder: Path,
    root: Path,
    rank_env: RankEnv | None = None,
) -> None:
    """Worker loop: runs jobs until the connection is closed, or None comes in place of a job.

    With a `rank_env` it is rank 0 of those that train together, and leads the rank workers.
    """
    ignore_signals()
    exit_with_parent()
    from zephyr.model.load import silence_libraries

    silence_libraries()
    gc.freeze()  # what is imported stays: nobody need look for garbage in it after each node
    store = Store(root)
    rendezvous = None if rank_env is None else Rendezvous(rank_env)
    with contextlib.suppress(EOFError):
        while (job := connection.recv()) is not None:
            connection.send(
                _run_job(job, connection, stop_event, recipe, folder, store, rendezvous)
            )
            release_memory()
    if rendezvous is not None:
        rendezvous.send(None)


def _run_job(
    job: Job,
    connection: Connection,
    stop_event: Event,
    recipe: Recipe,
    folder: Path,
    store: Store,
    rendezvous: Rendezvous | None,
) -> WorkerMessage:
    import torch

    from zephyr.engine.stages import run_stage
    from zephyr.runs.context import Context
    from zephyr.train.loop import RunInterrupted

    node = job.node
    last_sent = time.monotonic()
    meter = EnergyMeter()

    def progress(done: int, total: int, row: dict[str, Any]) -> None:
        nonlocal last_sent
        if time.monotonic() - last_sent > 0.2 or done == total:
            last_sent = time.monotonic()
            meter.read()
            connection.send(WorkerMessage(node.name, "progress", done, total, row))

    def notify(text: str) -> None:
        env.setdefault("told", []).append(text)
        write_json(run.path / "env.json", env)
        connection.send(WorkerMessage(node.name, "told", text=text))

    run = store.find(node.fingerprint)
    try:
        run = store.begin(node.fingerprint, {"kind": node.kind, **node.to_json()})
        processes = recipe.run.processes if node.kind in TRAINING_KINDS else 1
        current_env = current_environment(job.threads, processes, shard=recipe.run.shard)
        env = load_or_create_environment(run, current_env)
        for text in environment_changes(env, current_env):
            notify(text)
        torch.set_num_threads(env["threads"])
        inputs = {role: store.find(mark) for role, mark in job.inputs.items()}

        def record(name: str, value: Any) -> None:
            env[name] = value
            write_json(run.path / "env.json", env)

        start_time = time.monotonic()
        with (
            explain_disk_errors(run.path),
            _unwrap_os_errors(),
            _training_group(job, env, recipe, folder, store, rendezvous) as group,
        ):

            def resolve_once(name: str, compute: Callable[[], Any]) -> Any:
                if name not in env:
                    record(name, compute())
                return group.broadcast(env[name])

            budget = recipe.run.token_budget or TOKEN_BUDGET
            context = Context(
                recipe,
                folder,
                store.root,
                budget,
                record,
                resolve_once,
                progress,
                stop_event.is_set,
                notify,
                group,
            )
            run_stage(node, inputs, run, context)
        env["seconds"] = round(env["seconds"] + time.monotonic() - start_time, 3)
        if (joules := meter.read()) is not None:
            env["joules"] = round(joules, 1)
        write_json(run.path / "env.json", env)
        store.finish(run)
    except RunInterrupted:
        return WorkerMessage(node.name, "stopped")
    except ZephyrError as error:
        return _save_failure(store, run, WorkerMessage(node.name, "failed", text=str(error)))
    except Exception:  # noqa: BLE001  # a defect in one stage must not take the others with it
        return _save_failure(
            store, run, WorkerMessage(node.name, "broken", text=traceback.format_exc())
        )
    return WorkerMessage(node.name, "done")


@contextlib.contextmanager
def _training_group(
    job: Job,
    env: dict[str, Any],
    recipe: Recipe,
    folder: Path,
    store: Store,
    rendezvous: Rendezvous | None,
) -> Iterator[ProcessGroup]:
    """The process group of a job: this process alone, or rank 0 with the rank workers started."""
    if env["processes"] == 1:
        yield SINGLE_PROCESS
        return
    assert rendezvous is not None, "there are others only where they have been started"
    rendezvous.send(
        {
            "order": asdict(job),
            "env": {name: env[name] for name in ("threads", "processes", "shard")},
            "recipe": recipe.spec(),
            "folder": str(folder),
            "store": str(store.root),
        }
    )
    with rendezvous.process_group(env["processes"], is_sharded=env["shard"]) as group:
        yield group


@contextlib.contextmanager
def _unwrap_os_errors() -> Iterator[None]:
    """Raises the `OSError` that a library in Rust reports as text only."""
    try:
        yield
    except Exception as error:
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None or isinstance(error, OSError | ZephyrError):
            raise
        raise OSError(int(number[1]), str(error)) from error


def _save_failure(store: Store, run: Run, message: WorkerMessage) -> WorkerMessage:
    """Saves a failure beside what the run left, if the disk allows; gives back the message."""
    with contextlib.suppress(ZephyrError, FileNotFoundError):
        store.fail(run, message.text)
    return message


def set_thread_environment() -> None:
    """Sets how OpenMP's threads wait; must run before torch is imported.

    Threads that spin for long while they wait make a step many times slower as soon as something
    else runs; threads that never spin make it slower on an idle machine (docs/log.md).
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")


def ignore_signals() -> None:
    """Leaves Ctrl-C and SIGTERM to the scheduler, which asks to stop after a checkpoint."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def exit_with_parent() -> None:
    """Exits this process when the one that started it as a worker does."""
    parent = parent_process()
    if parent is None:
        return

    def wait_for_parent() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=wait_for_parent, daemon=True).start()
