"""Apps within this process, with real models behind them, and what every error is like."""

import copy
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from bench.shape import TEMPLATE
from tests import tiny
from tests.place import Place
from tests.tutor.asgi import Reply, call
from zephyr.model.load import Lineage, assemble
from zephyr.records import Choice
from zephyr.tutor.access import Access
from zephyr.tutor.api import make_app
from zephyr.tutor.class_routes import class_routes
from zephyr.tutor.classroom import Classroom
from zephyr.tutor.events import Events
from zephyr.tutor.quizzes import Quizzes
from zephyr.tutor.scheduler import Network, Scheduler
from zephyr.tutor.serving import Served, Serving, open_models
from zephyr.tutor.settings import Tutor
from zephyr.tutor.teacher_routes import teacher_routes

TEACHER = "the-token-of-the-teacher"
ASK = {"role": "user", "content": "What is force? (3)"}
QUIZ = [Choice("quiz", f"{n} + {n}?", (str(2 * n), str(n), "7"), 0) for n in range(1, 4)]
TUTOR = Tutor.model_validate({"course": "Physics", "limits": {"tokens": 12}})
CHAT, COMPLETE = "/v1/chat/completions", "/v1/completions"


class Room(NamedTuple):
    """An app, and the models behind it."""

    app: Any
    serving: Serving
    events: Events


@contextmanager
def classroom(place: Place, *models: str, password: str | None = None) -> Iterator[Room]:
    """Models of a place's recipe before a class."""
    serving = open_models(
        {name: Lineage.read(place.run(name) / "artifact") for name in models},
        dict.fromkeys(models, "a tiny model"),
        place.runs,
        batch=TUTOR.limits.batch,
        queue=TUTOR.limits.queue,
    )
    with _open(serving, password) as room:
        yield room


@contextmanager
def speaking_chatml() -> Iterator[Room]:
    """Two models whose conversations have the markers of Qwen's, as special tokens."""
    tokenizer = copy.deepcopy(tiny.tokenizer())
    markers = {"additional_special_tokens": ["<|im_start|>"], "eos_token": "<|im_end|>"}
    tokenizer.add_special_tokens(markers)
    tokenizer.chat_template = TEMPLATE
    causal = tiny.qwen2()
    causal.resize_token_embeddings(len(tokenizer))
    model = assemble(causal, tokenizer, token_budget=256)
    networks = {name: Network(model.causal, model.template, [name]) for name in ("M1", "M2")}
    scheduler = Scheduler(list(networks.values()), batch=4, queue=4)
    models = {
        name: Served(name, "a tiny model", network, model, scheduler)
        for name, network in networks.items()
    }
    scheduler.start()
    with _open(Serving(models, scheduler), None) as room:
        yield room


@contextmanager
def _open(serving: Serving, password: str | None) -> Iterator[Room]:
    with tempfile.TemporaryDirectory(prefix="zephyr-class-") as folder:
        events = Events(Path(folder) / "tutor.sqlite")
        room = Classroom(serving, TUTOR, events, Quizzes(QUIZ, 1))
        routers = (class_routes(room), teacher_routes(room))
        try:
            app = make_app(serving, TUTOR, Access(password, TEACHER), routers)
            yield Room(app, serving, events)
        finally:
            serving.scheduler.end()
            events.close()


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def chat(**other: Any) -> dict[str, Any]:
    return {"model": "M1", "messages": [ASK], "max_tokens": 4, "temperature": 0} | other


def refused(reply: Reply, *statuses: int) -> dict[str, Any]:
    """The error of a reply, once it has the form that every error has."""
    assert reply.raised is None
    assert reply.status in statuses, (reply.status, reply.body[:500])
    assert reply.headers is not None
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert set(reply.json) == {"error"}
    error: dict[str, Any] = reply.json["error"]
    assert set(error) == {"message", "type", "code", "param"}
    assert isinstance(error["message"], str)
    assert 3 < len(error["message"]) < 1_000
    assert "Traceback" not in error["message"]
    assert isinstance(error["type"], str)
    if reply.status == 429:
        assert int(reply.headers["retry-after"]) > 0
    return error


def still_answers(room: Room) -> None:
    """Asks for an answer, and sees to it that nothing else is still being answered."""
    reply = call(room.app, "POST", CHAT, chat(max_tokens=2))
    assert reply.status == 200
    assert reply.json["choices"][0]["message"]["content"]
    assert room.serving.scheduler.counts[:2] == (0, 0)
