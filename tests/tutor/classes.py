"""A class with two tiny models, in this process."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from tests import tiny
from zephyr.records import Choice
from zephyr.tutor.access import Access
from zephyr.tutor.api import make_app
from zephyr.tutor.class_routes import class_routes
from zephyr.tutor.classroom import Classroom
from zephyr.tutor.events import Events
from zephyr.tutor.quizzes import Quizzes
from zephyr.tutor.scheduler import Network, Scheduler
from zephyr.tutor.serving import Served, Serving
from zephyr.tutor.settings import Tutor
from zephyr.tutor.teacher_routes import teacher_routes

TOKEN = "the-teachers-token"  # of a test
QUIZ = [
    Choice("quiz", f"{n} + {n}?", (str(2 * n), str(n), "a force"), 0, "sums" if n % 2 else "")
    for n in range(1, 5)
]


def served(names: tuple[str, ...], **limits: int) -> Serving:
    """Models with random weights, each a network of its own."""
    models = {name: tiny.model("qwen2", seed) for seed, name in enumerate(names)}
    networks = {name: Network(m.causal, m.template, [name]) for name, m in models.items()}
    scheduler = Scheduler(list(networks.values()), **{"batch": 4, "queue": 16, **limits})
    made = {
        name: Served(name, f"about {name}", networks[name], model, scheduler)
        for name, model in models.items()
    }
    return Serving(made, scheduler)


class Class:
    """A class, and what asks its app."""

    def __init__(self, room: Classroom, client: TestClient) -> None:
        self.room, self.client = room, client
        self.events = room.events

    def session(self) -> str:
        return str(self.post("/tutor/session")["session"])

    def post(self, path: str, status: int = 200, **body: Any) -> dict[str, Any]:
        """The JSON that a request is answered with; of an error its inside."""
        return self.told(self._posted(path, body), status)

    def _posted(self, path: str, body: dict[str, Any]) -> Any:
        """JSON in ASCII, for bodies that hold half a character."""
        headers = {"Content-Type": "application/json"}
        return self.client.post(path, content=json.dumps(body), headers=headers)

    def get(self, path: str, status: int = 200, **params: str) -> dict[str, Any]:
        return self.told(self.client.get(path, params=params), status)

    def told(self, response: Any, status: int) -> dict[str, Any]:
        assert response.status_code == status, response.text
        body: dict[str, Any] = response.json()
        if status >= 400:
            assert set(body["error"]) == {"message", "type", "code", "param"}
            found: dict[str, Any] = body["error"]
            return found
        return body

    def stream(self, path: str, **body: Any) -> list[dict[str, Any]]:
        """The events of a stream, without its end."""
        response = self._posted(path, body)
        assert response.status_code == 200, response.text
        assert response.headers["content-type"].startswith("text/event-stream")
        *lines, last, nothing = response.text.split("\n\n")
        assert (last, nothing) == ("data: [DONE]", "")
        return [json.loads(line.removeprefix("data: ")) for line in lines]


@contextmanager
def open_class(
    folder: Path,
    settings: dict[str, Any] | None = None,
    *,
    names: tuple[str, ...] = ("M1", "M2"),
    password: str | None = None,
    quiz: list[Choice] = QUIZ,
    **limits: int,
) -> Iterator[Class]:
    """A class whose settings are these, with short answers."""
    tutor = Tutor.model_validate({"limits": {"tokens": 12, "message": 60}} | (settings or {}))
    serving = served(names, **limits)
    serving.scheduler.start()
    events = Events(folder / "tutor.sqlite")
    room = Classroom(serving, tutor, events, Quizzes(quiz, 1))
    routers = (class_routes(room), teacher_routes(room))
    app = make_app(serving, tutor, Access(password, TOKEN), routers, room.heard)
    with TestClient(app, base_url="http://127.0.0.1") as client:
        yield Class(room, client)
    serving.scheduler.end()
    events.close()
