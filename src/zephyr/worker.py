"""A process that makes runs, one after another, as its parent asks.

It ends when its parent does, however that ends; what it was writing stays unfinished and is taken
up by the next run.
"""

import contextlib
import os
import platform
import re
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from zephyr.errors import ZephyrError
from zephyr.graph import Node
from zephyr.recipe import Recipe
from zephyr.store import Run, Store, full_disk_explained, read_json, write_json

TOKEN_BUDGET = 4096
"""Tokens of one forward where nothing is trained, unless the recipe fixes them."""


@dataclass(frozen=True)
class Order:
    """One node to be made, the fingerprints of the runs that enter it, and its threads."""

    node: Node
    inputs: dict[str, str]
    threads: int


@dataclass(frozen=True)
class Report:
    """What a worker says: `state` is progress, told, done, failed, broken or stopped.

    A failure is the user's or the world's; broken is a defect of this program. What is told is for
    a person to know, and stays with the run.
    """

    node: str
    state: str
    done: int = 0
    of: int = 0
    row: dict[str, Any] | None = None
    text: str = ""

    @property
    def ends(self) -> bool:
        """Whether the worker has nothing to do any more."""
        return self.state not in ("progress", "told")


def work(orders: Connection, stop: Event, recipe: Recipe, folder: Path, root: Path) -> None:
    """Makes runs until the connection is closed, or None comes in place of an order."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the parent asks, and a checkpoint is written
    _end_with_parent()
    from zephyr.model.load import quiet

    quiet()
    store = Store(root)
    while True:
        try:
            order: Order | None = orders.recv()
        except EOFError:
            return
        if order is None:
            return
        orders.send(_make(order, orders, stop, recipe, folder, store))


def _make(
    order: Order,
    orders: Connection,
    stop: Event,
    recipe: Recipe,
    folder: Path,
    store: Store,
) -> Report:
    import torch

    from zephyr.context import Context
    from zephyr.stages import run_stage
    from zephyr.train.loop import Interrupted

    node = order.node
    heard = time.monotonic()

    def progress(done: int, of: int, row: dict[str, Any]) -> None:
        nonlocal heard
        if time.monotonic() - heard > 0.2 or done == of:
            heard = time.monotonic()
            orders.send(Report(node.name, "progress", done, of, row))

    def tell(text: str) -> None:
        env.setdefault("told", []).append(text)
        write_json(run.path / "env.json", env)
        orders.send(Report(node.name, "told", text=text))

    run = store.find(node.fingerprint)
    try:
        run = store.begin(node.fingerprint, {"kind": node.kind, **node.to_json()})
        now = _environment(order.threads)
        env = _settled(run, now)
        for text in _changes(env, now):
            tell(text)
        torch.set_num_threads(env["threads"])
        inputs = {role: store.find(mark) for role, mark in order.inputs.items()}

        def keep(name: str, value: Any) -> None:
            env[name] = value
            write_json(run.path / "env.json", env)

        def settle(name: str, find: Callable[[], Any]) -> Any:
            if name not in env:
                keep(name, find())
            return env[name]

        budget = recipe.run.token_budget or TOKEN_BUDGET
        context = Context(
            recipe, folder, store.root, budget, keep, settle, progress, stop.is_set, tell
        )
        started = time.monotonic()
        with full_disk_explained(run.path), _system_errors():
            run_stage(node, inputs, run, context)
        env["seconds"] = round(env["seconds"] + time.monotonic() - started, 3)
        write_json(run.path / "env.json", env)
        store.finish(run)
    except Interrupted:
        return Report(node.name, "stopped")
    except ZephyrError as error:
        return _failure(store, run, Report(node.name, "failed", text=str(error)))
    except Exception:  # noqa: BLE001  # a defect in one stage must not take the others with it
        return _failure(store, run, Report(node.name, "broken", text=traceback.format_exc()))
    return Report(node.name, "done")


@contextlib.contextmanager
def _system_errors() -> Iterator[None]:
    """Gives the system's own error where a library in Rust tells of it in words alone."""
    try:
        yield
    except Exception as error:
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None or isinstance(error, OSError | ZephyrError):
            raise
        raise OSError(int(number[1]), str(error)) from error


def _failure(store: Store, run: Run, report: Report) -> Report:
    """`report`, kept beside what the run left; on a full disk, only told."""
    with contextlib.suppress(ZephyrError, FileNotFoundError):
        store.fail(run, report.text)
    return report


def _settled(run: Run, now: dict[str, Any]) -> dict[str, Any]:
    """What the run is made with: as an earlier try has settled it, so that resuming is exact."""
    path = run.path / "env.json"
    if not path.exists():
        write_json(path, now)
        return now
    try:
        return dict(read_json(path))
    except ValueError as error:
        raise ZephyrError(
            "what an unfinished run was begun with can't be read",
            where=str(path),
            found=error,
            todo=f"remove {run.path}: the run is then made from its start",
        ) from error


def _changes(then: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """What is not as it was when a run was begun, a sentence each."""
    if then["threads"] > cores():
        yield (
            f"it was begun with {then['threads']} threads and goes on with as many, for the result "
            f"depends on their number; this machine has {cores()} cores, and will be slow"
        )
    before, after = ({**env["versions"], "device": env["device"]} for env in (then, now))
    differing = [f"{k} {before.get(k)} -> {v}" for k, v in after.items() if before.get(k) != v]
    if differing:
        yield (
            f"it goes on with other than it was begun with ({', '.join(differing)}): "
            "the result may differ from an unbroken run's in its last bits"
        )


def cores() -> int:
    """The processor's cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _environment(threads: int) -> dict[str, Any]:
    """What a run that starts now is made with."""
    return {
        "threads": threads,
        "device": _device(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": 0.0,
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "versions": versions(),
    }


def _device() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


LIBRARIES = (
    "zephyr",
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "bitsandbytes",
    "tokenizers",
    "numpy",
)


def versions() -> dict[str, str]:
    """The versions of the libraries that a result may depend on."""
    from importlib.metadata import version

    from zephyr import __version__

    return {n: __version__ if n == "zephyr" else version(n) for n in LIBRARIES}


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None, "a worker is started by the engine"

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
