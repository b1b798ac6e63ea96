"""A server of the tiny recipe, as a process of its own."""

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.commands import Started
from tests.place import Place
from tests.tutor.rooms import Room, classroom, still_answers


@dataclass(frozen=True)
class Server:
    """A tutor that answers at `url`, and the token of its teacher."""

    url: str
    token: str
    process: Started


@contextmanager
def serving(place: Place, *arguments: str) -> Iterator[Server]:
    """Serves models of the tiny recipe at a free port of this machine."""
    process = place.start("serve", "--recipe", "tiny.yaml", "--port", "0", *arguments)
    said: list[str] = []
    for line in process.stdout:
        said.append(line)
        if found := re.search(r"(https?://\S+)\s+teacher: \S+ token in (.*)", line):
            token = Path(found[2].strip()).read_text(encoding="utf-8").strip()
            break
    else:
        raise AssertionError("".join(said))
    reading = Thread(target=process.stdout.read, daemon=True)  # a full pipe would stop the server
    reading.start()
    try:
        yield Server(found[1], token, process)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)
        reading.join()
        process.stdout.close()


@pytest.fixture(scope="session")
def server(finished: Place) -> Iterator[Server]:
    with serving(finished) as found:
        yield found


@pytest.fixture(scope="module")
def room(finished: Place) -> Iterator[Room]:
    with classroom(finished, "M1", "M2") as found:
        yield found


@pytest.fixture
def app(room: Room) -> Iterator[Any]:
    """An app that must still answer when the test has done its worst."""
    yield room.app
    still_answers(room)
