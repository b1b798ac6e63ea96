"""A test client on a class with two tiny models, in this process."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from tests import tiny
from zephyr.records import Choice
from zephyr.tutor.access import AccessPolicy
from zephyr.tutor.api import create_app
from zephyr.tutor.class_routes import class_routes
from zephyr.tutor.classroom import Classroom
from zephyr.tutor.events import EventLog
from zephyr.tutor.quizzes import Quizzes
from zephyr.tutor.scheduler import ModelRunner, Scheduler
from zephyr.tutor.serving import ServedModel, ServingEngine
from zephyr.tutor.settings import TutorSettings
from zephyr.tutor.teacher_routes import teacher_routes

TOKEN = "the-teachers-token"  # of a test
QUIZ = [
    Choice("quiz", f"{n} + {n}?", (str(2 * n), str(n), "a force"), 0, "sums" if n % 2 else "")
    for n in range(1, 5)
]


def make_serving(names: tuple[str, ...], **limits: int) -> ServingEngine:
    """Models with random weights, each with a model runner of its own."""
    models = {name: tiny.make_model("qwen2", seed) for seed, name in enumerate(names)}
    runners = {name: ModelRunner(m.causal, m.template, [name]) for name, m in models.items()}
    scheduler = Scheduler(list(runners.values()), **{"batch": 4, "queue": 16, **limits})
    served_models = {
        name: ServedModel(name, f"about {name}", runners[name], model, scheduler)
        for name, model in models.items()
    }
    return ServingEngine(served_models, scheduler)


class ClassClient:
    """A test client of a class's app."""

    def __init__(self, classroom: Classroom, client: TestClient) -> None:
        self.classroom, self.http = classroom, client
        self.events = classroom.events

    def session(self) -> str:
        return str(self.post("/tutor/session")["session"])

    def post(self, path: str, status: int = 200, **body: Any) -> dict[str, Any]:
        """The JSON response of a POST request; of an error its inner object."""
        return self.parse_response(self._post_json(path, body), status)

    def _post_json(self, path: str, body: dict[str, Any]) -> Any:
        """JSON in ASCII, for bodies that hold half a character."""
        headers = {"Content-Type": "application/json"}
        return self.http.post(path, content=json.dumps(body), headers=headers)

    def get(self, path: str, status: int = 200, **params: str) -> dict[str, Any]:
        return self.parse_response(self.http.get(path, params=params), status)

    def parse_response(self, response: Any, status: int) -> dict[str, Any]:
        assert response.status_code == status, response.text
        body: dict[str, Any] = response.json()
        if status >= 400:
            assert set(body["error"]) == {"message", "type", "code", "param"}
            error: dict[str, Any] = body["error"]
            return error
        return body

    def stream(self, path: str, **body: Any) -> list[dict[str, Any]]:
        """The events of a stream, without its end."""
        response = self._post_json(path, body)
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
) -> Iterator[ClassClient]:
    """A class whose settings are these, with short answers."""
    tutor = TutorSettings.model_validate(
        {"limits": {"tokens": 12, "message": 60}} | (settings or {})
    )
    serving = make_serving(names, **limits)
    serving.scheduler.start()
    events = EventLog(folder / "tutor.sqlite")
    classroom = Classroom(serving, tutor, events, Quizzes(quiz, 1))
    routers = (class_routes(classroom), teacher_routes(classroom))
    app = create_app(serving, tutor, AccessPolicy(password, TOKEN), routers, classroom.on_answer)
    with TestClient(app, base_url="http://127.0.0.1") as client:
        yield ClassClient(classroom, client)
    serving.scheduler.shutdown()
    events.close()
