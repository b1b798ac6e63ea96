"""How processes that train together meet: orders go out from the first, and reasons come back.

Each process finds its place in variables that torchrun sets (RANK, WORLD_SIZE, MASTER_ADDR ...);
the engine sets the same for the processes that it starts itself. A key-value store carries orders,
and each training has a group of its own: when one process fails, its group is closed, the others
hear of it at their next sum, and all of them are ready for the next order.
"""

import json
import os
import socket
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from zephyr.distributed.process_group import Group, Lost
from zephyr.errors import ZephyrError

PATIENCE = timedelta(days=20)
"""How long processes wait for each other. That one has died shows by its broken connection."""

Seat = dict[str, str]
"""The variables of the environment that give a process its place."""


def seats(size: int) -> list[Seat]:
    """Places for `size` processes on this machine, which meet on its loopback interface alone."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    loopback = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
    return [
        {
            "RANK": str(rank),
            "WORLD_SIZE": str(size),
            "LOCAL_RANK": str(rank),
            "LOCAL_WORLD_SIZE": str(size),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "GLOO_SOCKET_IFNAME": loopback,
        }
        for rank in range(size)
    ]


def given_size() -> int:
    """How many processes torchrun, or who works like it, has started; 1 if it has not."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "MASTER_ADDR" in os.environ else 1


def given_rank() -> int:
    """The number of this process among them."""
    return int(os.environ["RANK"]) if given_size() > 1 else 0


def processes_here(size: int) -> int:
    """How many of `size` processes run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", size))


class Channel:
    """The end that one process holds; all of them must be made before one of them is used."""

    def __init__(self, seat: Seat | None = None) -> None:
        """Takes the place of `seat`, or the one given by the environment.

        Its variables are taken out of the environment, lest Accelerate makes a group of its own.
        """
        import torch
        from torch.distributed.rendezvous import rendezvous

        os.environ |= seat or {}
        self.store, self.rank, size = next(rendezvous("env://"))
        self.here = processes_here(size)
        self.orders = 0
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
            os.environ.pop(name, None)

    def send(self, order: Any) -> None:
        """Gives a JSON value to all other processes; None sends them home."""
        self.orders += 1
        self.store.set(f"order {self.orders}", json.dumps(order))

    def receive(self) -> Any:
        """The next value that the first process sends; None too if it has ended."""
        from torch.distributed import DistError

        self.orders += 1
        key = f"order {self.orders}"
        try:
            self.store.wait([key], PATIENCE)
            return json.loads(self.store.get(key))
        except DistError:
            return None

    @contextmanager
    def group(self, size: int, *, divides: bool) -> Iterator[Group]:
        """The first `size` processes as a group that carries out the last order together.

        Raises:
            ZephyrError: another process has failed or ended.
        """
        import torch
        from torch.distributed.distributed_c10d import PrefixStore

        backend = "nccl" if torch.cuda.is_available() else "gloo"
        try:
            torch.distributed.init_process_group(
                backend,
                store=PrefixStore(f"group {self.orders}", self.store),
                rank=self.rank,
                world_size=size,
                timeout=PATIENCE,
            )
            yield Group(self.rank, size, divides, min(self.here, size))
        except Exception as error:
            reasons = [r for rank in range(size) for r in self._reasons(rank)]
            if isinstance(error, Lost) or (reasons and isinstance(error, RuntimeError)):
                raise ZephyrError(
                    "another process of this training has failed",
                    found="\n".join(reasons) or f"its connection is closed ({error})",
                    todo="run the same command again: training goes on from its last checkpoint",
                ) from error
            text = str(error) if isinstance(error, ZephyrError) else traceback.format_exc()
            self.store.set(f"reason {self.orders} {self.rank}", text)
            raise
        finally:
            if torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()

    def _reasons(self, rank: int) -> list[str]:
        key = f"reason {self.orders} {rank}"
        if not self.store.check([key]):
            return []
        return [f"process {rank}: {self.store.get(key).decode()}"]
