"""Server process: started, awaited, its memory measured, stopped."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

import psutil

from bench.serving.client import HOST, free_port

START_TIMEOUT = 300
POLL_INTERVAL = 0.02


class Server:
    """A process that serves on a free port: `{port}` in its command; its output goes to a file."""

    def __init__(
        self, command: Sequence[str], log: Path, environment: Mapping[str, str], cwd: Path
    ) -> None:
        self.port = free_port()
        self.log = log
        self._log_file = log.open("ab")
        self.start_time = time.monotonic()
        self.process = subprocess.Popen(
            [part.format(port=self.port) for part in command],
            cwd=cwd,
            env={**os.environ, **environment},
            stdout=self._log_file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    async def wait_until_listening(self) -> None:
        """Waits until connections are accepted.

        Raises:
            SystemExit: the process ended, or accepts none for minutes.
        """
        end = time.monotonic() + START_TIMEOUT
        while True:
            with suppress(OSError):
                _, writer = await asyncio.open_connection(HOST, self.port)
                writer.close()
                return
            if self.process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"the server does not listen:\n{self.output()}")
            await asyncio.sleep(POLL_INTERVAL)

    def output(self) -> str:
        """The end of what the server has printed."""
        return self.log.read_text(encoding="utf-8", errors="replace")[-4000:]

    def peak_bytes(self) -> int:
        """The most memory that was resident, in the process and in those that it started."""
        texts = (Path(f"/proc/{process.pid}/status").read_text() for process in self._family())
        return sum(int(text.partition("VmHWM:")[2].split()[0]) * 1024 for text in texts)

    def proportional_bytes(self) -> int:
        """Resident memory, what is shared with other processes only in part."""
        return sum(int(process.memory_full_info().pss) for process in self._family())

    def open_files(self) -> int:
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
        self._log_file.close()
        return self.process.wait()

    def _family(self) -> list[psutil.Process]:
        own = psutil.Process(self.process.pid)
        return [own, *own.children(recursive=True)]
