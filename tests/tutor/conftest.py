"""Fixtures: a tutor server of the tiny recipe, as a process of its own."""

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.command_process import CommandProcess
from tests.tutor.apps import TutorApp, check_still_answers, open_app
from tests.workspace import Workspace


@dataclass(frozen=True)
class Server:
    """A tutor that answers at `url`, and the token of its teacher."""

    url: str
    token: str
    process: CommandProcess


@contextmanager
def start_server(workspace: Workspace, *arguments: str) -> Iterator[Server]:
    """Serves models of the tiny recipe at a free port of this machine."""
    process = workspace.start_command("serve", "--recipe", "tiny.yaml", "--port", "0", *arguments)
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if found := re.search(r"(https?://\S+)\s+teacher: \S+ token in (.*)", line):
            token = Path(found[2].strip()).read_text(encoding="utf-8").strip()
            break
    else:
        raise AssertionError("".join(lines))
    drain_thread = Thread(
        target=process.stdout.read, daemon=True
    )  # a full pipe would stop the server
    drain_thread.start()
    try:
        yield Server(found[1], token, process)
    finally:
        process.send_signal(signal.SIGTERM)
        exit_code = process.wait(timeout=30)
        drain_thread.join()
        process.stdout.close()
        assert exit_code in (0, -signal.SIGKILL)  # a test may have killed it


@pytest.fixture(scope="session")
def server(finished_workspace: Workspace) -> Iterator[Server]:
    with start_server(finished_workspace) as found:
        yield found


@pytest.fixture(scope="module")
def tutor_app(finished_workspace: Workspace) -> Iterator[TutorApp]:
    with open_app(finished_workspace, "M1", "M2") as found:
        yield found


@pytest.fixture
def app(tutor_app: TutorApp) -> Iterator[Any]:
    """An app that must still answer when the test has done its worst."""
    yield tutor_app.app
    check_still_answers(tutor_app)
