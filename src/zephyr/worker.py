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
    """What a worker says: `state` is progress, done, failed, broken or stopped.

    A failure is the user's or the world's; broken is a defect of this program.
    """

    node: str
    state: str
    done: int = 0
    of: int = 0
    row: dict[str, Any] | None = None
    text: str = ""


def work(orders: Connection, stop: Event, recipe: Recipe, folder: Path, root: Path) -> None:
    """Makes runs until the connection is closed, or None comes in place of an order."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent asks, and a checkpoint is written
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

    run = store.find(node.fingerprint)
    try:
        run = store.begin(node.fingerprint, {"kind": node.kind, **node.to_json()})
        env = _environment(run, order.threads)
        torch.set_num_threads(env["threads"])
        inputs = {role: store.find(mark) for role, mark in order.inputs.items()}

        def settle(name: str, find: Callable[[], Any]) -> Any:
            if name not in env:
                env[name] = find()
                write_json(run.path / "env.json", env)
            return env[name]

        budget = recipe.run.token_budget or TOKEN_BUDGET
        context = Context(recipe, folder, store.root, budget, settle, progress, stop.is_set)
        started = time.monotonic()
        with full_disk_explained(run.path), _system_errors():
            run_stage(node, inputs, run, context)
        env |= context.notes
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


def _environment(run: Run, threads: int) -> dict[str, Any]:
    """What the run is made with; what an earlier try settled is kept, so that resuming is exact."""
    path = run.path / "env.json"
    if path.exists():
        return dict(read_json(path))
    env = {
        "threads": threads,
        "device": _device(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": 0.0,
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "versions": versions(),
    }
    write_json(path, env)
    return env


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
