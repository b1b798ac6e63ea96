"""Runs the command line in a process forked from one that has imported everything.

To import torch and all else costs a command and each of its workers 6 s. Here one process does it
for all commands of a test process, and the workers are forks of their command.
"""

import atexit
import multiprocessing
import os
import sys
import threading
import warnings
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path

from zephyr.cli import app as cli

FORKSERVER = multiprocessing.get_context("forkserver")
"""The multiprocessing context, whose processes have imported everything."""

FORKSERVER.set_forkserver_preload(["tests.preload"])


class CommandProcess:
    """A running command: what tests need of `subprocess.Popen`, with stdout and stderr as one."""

    def __init__(self, arguments: tuple[str, ...], folder: Path, env: Mapping[str, str]):
        read, write = FORKSERVER.Pipe(duplex=False)
        process_args = (arguments, folder, {**os.environ, **env}, write)
        self._process = FORKSERVER.Process(target=_run_command, args=process_args)
        self._process.start()
        write.close()
        self.stdout = os.fdopen(os.dup(read.fileno()), encoding="utf-8")
        read.close()
        atexit.register(self._process.kill)

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, or None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """None while it runs."""
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL to the command alone."""
        self._process.kill()

    def wait(self, timeout: float) -> int:
        self._process.join(timeout)
        assert self._process.exitcode is not None, f"it has not ended after {timeout} s"
        return self._process.exitcode

    def communicate(self, timeout: float = 60) -> tuple[str, None]:
        """Waits for its end, and returns the rest of its output."""
        output_parts: list[str] = []
        reader = threading.Thread(
            target=lambda: output_parts.append(self.stdout.read()), daemon=True
        )
        reader.start()
        reader.join(timeout)
        self.wait(timeout)
        self.stdout.close()
        return output_parts[0], None


def _run_command(
    arguments: tuple[str, ...], folder: Path, env: dict[str, str], output: Connection
) -> None:
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    os.dup2(output.fileno(), 1)
    os.dup2(output.fileno(), 2)
    output.close()
    # line by line, for who waits for one
    sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", closefd=False)
    sys.argv = ["zephyr", *arguments]
    fork_workers()
    cli.main()


def fork_workers(set_attribute: Callable[[object, str, object], None] = setattr) -> None:
    """From now on the workers of a command in this process are forks of it."""
    # from Python 3.12 on; a thread of a progress bar is no danger to a fork
    warnings.filterwarnings("ignore", ".*is multi-threaded, use of fork", DeprecationWarning)
    fork_context = multiprocessing.get_context("fork")
    set_attribute(multiprocessing, "get_context", lambda method=None: fork_context)
