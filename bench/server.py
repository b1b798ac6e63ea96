"""A server's process: started, asked until it answers, looked at, stopped."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Self

import psutil

PATIENCE = 300
"""Seconds within which a server must listen."""
POLL = 0.02


class Server:
    """A process that serves on `port`; what it prints goes to a file."""

    def __init__(
        self,
        command: Sequence[str],
        port: int,
        log: Path,
        *,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.port = port
        self.log = log
        self._file: IO[bytes] = log.open("ab")
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            list(command),
            cwd=cwd,
            env={**os.environ, **(environment or {})},
            stdout=self._file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    async def listening(self) -> None:
        """Waits until connections are taken.

        Raises:
            SystemExit: the process ended, or takes none for minutes.
        """
        end = time.monotonic() + PATIENCE
        while True:
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.close()
                return
            if self.process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"the server does not listen:\n{self.printed()}")
            await asyncio.sleep(POLL)

    def printed(self) -> str:
        """The end of what the server has printed."""
        return self.log.read_text(encoding="utf-8", errors="replace")[-4000:]

    def peak_bytes(self) -> int:
        """The most memory that was resident, in the process and in those that it started."""
        return sum(_status(process.pid, "VmHWM") for process in self._family())

    def resident_bytes(self) -> int:
        return sum(_status(process.pid, "VmRSS") for process in self._family())

    def own_bytes(self) -> int:
        """Resident memory that is no file's: what the process has asked for and written to."""
        return sum(_status(process.pid, "RssAnon") for process in self._family())

    def proportional_bytes(self) -> int:
        """Resident memory, what is shared with other processes only in part."""
        return sum(int(process.memory_full_info().pss) for process in self._family())

    def files(self) -> int:
        """Open files and connections."""
        return psutil.Process(self.process.pid).num_fds()

    def stop(self) -> int:
        """Ends it as Ctrl-C does, and gives its exit status; SIGKILL where that takes too long."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(20)
        return self.kill()

    def kill(self) -> int:
        """SIGKILL to the process and those that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self._file.close()
        return self.process.wait()

    def _family(self) -> list[psutil.Process]:
        own = psutil.Process(self.process.pid)
        return [own, *own.children(recursive=True)]


def _status(pid: int, key: str) -> int:
    """A figure of /proc/PID/status, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    return 0
