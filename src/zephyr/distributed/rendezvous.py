"""Rendezvous of the ranks (torchrun's environment): rank 0 sends jobs, failures come back.

Each process reads its rank from the variables that torchrun sets (RANK, WORLD_SIZE, MASTER_ADDR
...); the engine sets the same for the processes that it starts itself. A key-value store carries
the messages, and each training has a process group of its own: when one rank fails, its group is
destroyed, the others fail at their next collective, and all are ready for the next message.
"""

import json
import os
import socket
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from zephyr.distributed.process_group import PeerLostError, ProcessGroup
from zephyr.errors import ZephyrError
from zephyr.system.devices import DEVICE_KINDS, device_type, set_local_device

TIMEOUT = timedelta(days=20)
"""Timeout of collectives. A dead rank is noticed by its closed connection, not by this."""

RankEnv = dict[str, str]
"""The environment variables of one rank, as torchrun sets them."""


def rank_envs(world_size: int) -> list[RankEnv]:
    """Rank environments of `world_size` processes on this machine, over the loopback interface."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    loopback = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
    return [
        {
            "RANK": str(rank),
            "WORLD_SIZE": str(world_size),
            "LOCAL_RANK": str(rank),
            "LOCAL_WORLD_SIZE": str(world_size),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "GLOO_SOCKET_IFNAME": loopback,
        }
        for rank in range(world_size)
    ]


def launched_world_size() -> int:
    """World size set by torchrun or a launcher like it; 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "MASTER_ADDR" in os.environ else 1


def launched_rank() -> int:
    """Rank of this process set by the launcher; 0 without one."""
    return int(os.environ["RANK"]) if launched_world_size() > 1 else 0


def local_world_size(world_size: int) -> int:
    """Local world size: how many of `world_size` processes run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", world_size))


class Rendezvous:
    """One rank's end of the rendezvous; all ranks must create theirs before one is used."""

    def __init__(self, rank_env: RankEnv | None = None) -> None:
        """Joins as the rank of `rank_env`, or the one set by torchrun in the environment.

        The variables are removed from the environment, lest Accelerate makes a process group of its
        own.
        """
        from torch.distributed.rendezvous import rendezvous

        os.environ |= rank_env or {}
        self.kv_store, self.rank, world_size = next(rendezvous("env://"))
        self.local_world_size = local_world_size(world_size)
        self.message_count = 0
        set_local_device(int(os.environ.get("LOCAL_RANK", "0")))
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
            os.environ.pop(name, None)

    def send(self, message: Any) -> None:
        """Sends a JSON value from rank 0 to all other ranks; None makes them exit."""
        self.message_count += 1
        self.kv_store.set(f"message {self.message_count}", json.dumps(message))

    def receive(self) -> Any:
        """Receives the next JSON value that rank 0 sends; None also if rank 0 has exited."""
        from torch.distributed import DistError

        self.message_count += 1
        key = f"message {self.message_count}"
        try:
            self.kv_store.wait([key], TIMEOUT)
            return json.loads(self.kv_store.get(key))
        except DistError:
            return None

    @contextmanager
    def process_group(self, world_size: int, *, is_sharded: bool) -> Iterator[ProcessGroup]:
        """Context manager: a process group of the first `world_size` ranks, for one training.

        Raises:
            ZephyrError: another rank has failed or exited.
        """
        import torch
        from torch.distributed.distributed_c10d import PrefixStore

        kind = device_type()
        backend = DEVICE_KINDS[kind].collectives
        if backend is None and world_size > 1:
            raise ZephyrError(
                "several processes can't share a training on this device",
                found=f"{world_size} processes on {kind}",
                todo="--processes 1",
            )
        try:
            torch.distributed.init_process_group(
                backend or "gloo",
                store=PrefixStore(f"group {self.message_count}", self.kv_store),
                rank=self.rank,
                world_size=world_size,
                timeout=TIMEOUT,
            )
            yield ProcessGroup(
                self.rank, world_size, is_sharded, min(self.local_world_size, world_size)
            )
        except Exception as error:
            failures = [r for rank in range(world_size) for r in self._failure_reasons(rank)]
            if isinstance(error, PeerLostError) or (failures and isinstance(error, RuntimeError)):
                raise ZephyrError(
                    "another process of this training has failed",
                    found="\n".join(failures) or f"its connection is closed ({error})",
                    todo="run the same command again: training goes on from its last checkpoint",
                ) from error
            text = str(error) if isinstance(error, ZephyrError) else traceback.format_exc()
            self.kv_store.set(f"reason {self.message_count} {self.rank}", text)
            raise
        finally:
            if torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()

    def _failure_reasons(self, rank: int) -> list[str]:
        key = f"reason {self.message_count} {rank}"
        if not self.kv_store.check([key]):
            return []
        return [f"process {rank}: {self.kv_store.get(key).decode()}"]
