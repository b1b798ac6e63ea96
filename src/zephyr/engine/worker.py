"""A process that makes runs, one after another, as its parent asks.

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

from zephyr.distributed.process_group import ALONE, Group
from zephyr.distributed.rendezvous import Channel, Seat
from zephyr.engine.environment import changes, environment, settled
from zephyr.errors import ZephyrError
from zephyr.recipe.schema import Recipe
from zephyr.runs.graph import Node
from zephyr.runs.store import Run, Store, full_disk_explained, write_json
from zephyr.system.energy import Meter
from zephyr.system.memory import give_memory_back

TOKEN_BUDGET = 4096
"""Tokens of one forward where nothing is trained, unless the recipe fixes them."""

TRAINING = ("pretrain", "tune", "align")
"""The kinds of nodes that several processes make together."""


@dataclass(frozen=True)
class Order:
    """One node to be made, the fingerprints of the runs that enter it, and its threads."""

    node: Node
    inputs: dict[str, str]
    threads: int

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> "Order":
        """What `asdict` took apart."""
        return cls(Node(**row["node"]), row["inputs"], row["threads"])


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


def work(
    orders: Connection,
    stop: Event,
    recipe: Recipe,
    folder: Path,
    root: Path,
    seat: Seat | None = None,
) -> None:
    """Makes runs until the connection is closed, or None comes in place of an order.

    With a `seat` it is the first of those that train together, and leads the others.
    """
    ignore_signals()
    end_with_parent()
    from zephyr.model.load import quiet

    quiet()
    gc.freeze()  # what is imported stays: nobody need look for garbage in it after each node
    store = Store(root)
    channel = None if seat is None else Channel(seat)
    with contextlib.suppress(EOFError):
        while (order := orders.recv()) is not None:
            orders.send(_make(order, orders, stop, recipe, folder, store, channel))
            give_memory_back()
    if channel is not None:
        channel.send(None)


def _make(
    order: Order,
    orders: Connection,
    stop: Event,
    recipe: Recipe,
    folder: Path,
    store: Store,
    channel: Channel | None,
) -> Report:
    import torch

    from zephyr.engine.stages import run_stage
    from zephyr.runs.context import Context
    from zephyr.train.loop import Interrupted

    node = order.node
    heard = time.monotonic()
    meter = Meter()

    def progress(done: int, of: int, row: dict[str, Any]) -> None:
        nonlocal heard
        if time.monotonic() - heard > 0.2 or done == of:
            heard = time.monotonic()
            meter.read()
            orders.send(Report(node.name, "progress", done, of, row))

    def tell(text: str) -> None:
        env.setdefault("told", []).append(text)
        write_json(run.path / "env.json", env)
        orders.send(Report(node.name, "told", text=text))

    run = store.find(node.fingerprint)
    try:
        run = store.begin(node.fingerprint, {"kind": node.kind, **node.to_json()})
        together = recipe.run.processes if node.kind in TRAINING else 1
        now = environment(order.threads, together, shard=recipe.run.shard)
        env = settled(run, now)
        for text in changes(env, now):
            tell(text)
        torch.set_num_threads(env["threads"])
        inputs = {role: store.find(mark) for role, mark in order.inputs.items()}

        def keep(name: str, value: Any) -> None:
            env[name] = value
            write_json(run.path / "env.json", env)

        started = time.monotonic()
        with (
            full_disk_explained(run.path),
            _system_errors(),
            _group(order, env, recipe, folder, store, channel) as group,
        ):

            def settle(name: str, find: Callable[[], Any]) -> Any:
                if name not in env:
                    keep(name, find())
                return group.share(env[name])

            budget = recipe.run.token_budget or TOKEN_BUDGET
            context = Context(
                recipe, folder, store.root, budget, keep, settle, progress, stop.is_set, tell, group
            )
            run_stage(node, inputs, run, context)
        env["seconds"] = round(env["seconds"] + time.monotonic() - started, 3)
        if (joules := meter.read()) is not None:
            env["joules"] = round(joules, 1)
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
def _group(
    order: Order,
    env: dict[str, Any],
    recipe: Recipe,
    folder: Path,
    store: Store,
    channel: Channel | None,
) -> Iterator[Group]:
    """This process alone, or at the head of those that take part: they are told what to do."""
    if env["processes"] == 1:
        yield ALONE
        return
    assert channel is not None, "there are others only where they have been started"
    channel.send(
        {
            "order": asdict(order),
            "env": {name: env[name] for name in ("threads", "processes", "shard")},
            "recipe": recipe.spec(),
            "folder": str(folder),
            "store": str(store.root),
        }
    )
    with channel.group(env["processes"], divides=env["shard"]) as group:
        yield group


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


def calm_threads() -> None:
    """Settles how OpenMP's threads wait; must come before torch is imported.

    Threads that spin for long while they wait make a step many times slower as soon as something
    else runs; threads that never spin make it slower on an idle machine (docs/log.md).
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")


def ignore_signals() -> None:
    """Leaves Ctrl-C and SIGTERM to the engine, which asks; then a checkpoint is written."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def end_with_parent() -> None:
    """Ends this process when the one that started it as a worker does."""
    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
