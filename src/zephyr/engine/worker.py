"""Worker process: runs the jobs (stages of nodes) that the scheduler sends, one by one.

It exits when its parent does, however that ends; the run that it was writing stays unfinished, and
is resumed next time.
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

DEFAULT_TOKEN_BUDGET = 4096
"""Default token budget of a batch for inference, unless the recipe sets `run.token_budget`."""

TRAINING_KINDS = ("pretrain", "tune", "align")
"""Node kinds that are trained, by several ranks where there are."""


@dataclass(frozen=True)
class Job:
    """A job for a worker: a node, the fingerprints of its input runs, and a number of threads."""

    node: Node
    inputs: dict[str, str]
    threads: int

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> "Job":
        """Makes the job of the JSON values that `asdict` gave."""
        return cls(Node(**row["node"]), row["inputs"], row["threads"])


@dataclass(frozen=True)
class WorkerMessage:
    """A worker's message: `state` is progress, notice, done, failed, broken or stopped.

    `failed` is a `ZephyrError` (wrong input, full disk ...), `broken` a bug of this program. A
    `notice` is a warning for the user, also recorded in the run's `env.json` (key `told`). Progress
    has a `phase` of the stage; its total is 0 where it is not known.
    """

    node: str
    state: str
    phase: str = ""
    done: int = 0
    total: int = 0
    row: dict[str, Any] | None = None
    text: str = ""

    @property
    def is_final(self) -> bool:
        """Whether it is the last message about its node."""
        return self.state not in ("progress", "notice")


def run_worker(
    connection: Connection,
    stop_event: Event,
    recipe: Recipe,
    folder: Path,
    root: Path,
    rank_env: RankEnv | None = None,
) -> None:
    """Worker loop: runs jobs until the connection is closed, or None comes in place of a job.

    With a `rank_env` it is rank 0 of distributed training, and sends jobs to the rank workers.
    """
    ignore_signals()
    exit_with_parent()
    from zephyr.model.load import silence_libraries

    silence_libraries()
    gc.freeze()  # imported modules stay: no need to garbage-collect them after each job
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
    """Runs the stage of a job and finishes its run; failures are returned as messages."""
    import torch

    from zephyr.engine.stages import run_stage
    from zephyr.runs.context import Context
    from zephyr.train.loop import RunInterrupted

    node = job.node
    last_sent, last_phase = time.monotonic(), ""
    meter = EnergyMeter()

    def progress(phase: str, done: int, total: int, row: dict[str, Any]) -> None:
        nonlocal last_sent, last_phase
        now = time.monotonic()
        if row or phase != last_phase or now - last_sent > 0.2 or done == total:
            last_sent, last_phase = now, phase
            meter.read()
            connection.send(WorkerMessage(node.name, "progress", phase, done, total, row))

    def notify(text: str) -> None:
        env.setdefault("told", []).append(text)
        write_json(run.path / "env.json", env)
        connection.send(WorkerMessage(node.name, "notice", text=text))

    run = store.find(node.fingerprint)
    try:
        run = store.begin(node.fingerprint, {"kind": node.kind, **node.to_json()})
        processes = recipe.run.processes if node.kind in TRAINING_KINDS else 1
        current_env = current_environment(job.threads, processes, shard=recipe.run.shard)
        env = load_or_create_environment(run, current_env)
        for text in environment_changes(env, current_env):
            notify(text)
        torch.set_num_threads(env["threads"])
        inputs = {role: store.find(fingerprint) for role, fingerprint in job.inputs.items()}

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

            budget = recipe.run.token_budget or DEFAULT_TOKEN_BUDGET
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
    except Exception:  # noqa: BLE001  # a bug in one stage must not end the others
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
    """The process group of a job: one process, or rank 0 after it sent the rank workers the job."""
    if env["processes"] == 1:
        yield SINGLE_PROCESS
        return
    assert rendezvous is not None, "there are others only where they have been started"
    rendezvous.send(
        {
            "job": asdict(job),
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
    """Saves the failure in the run's folder, if the disk allows; returns the message."""
    with contextlib.suppress(ZephyrError, FileNotFoundError):
        store.fail(run, message.text)
    return message


def set_thread_environment() -> None:
    """Sets environment variables of OpenMP and tokenizers; call before torch is imported.

    Threads that spin for long while they wait make a step many times slower as soon as something
    else runs; threads that never spin make it slower on an idle machine (docs/log.md).
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")


def ignore_signals() -> None:
    """Ignores SIGINT (Ctrl-C) and SIGTERM: the scheduler handles them, and sets `stop_event`."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def exit_with_parent() -> None:
    """Exits this process as soon as its parent process exits."""
    parent = parent_process()
    if parent is None:
        return

    def wait_for_parent() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=wait_for_parent, daemon=True).start()
