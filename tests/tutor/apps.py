"""Tutor apps in this process with real models, and the form of every API error."""

import copy
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from bench.shared.models import TEMPLATE
from tests import tiny
from tests.tutor.asgi import Reply, call
from tests.workspace import Workspace
from zephyr.model.load import Lineage, build_model
from zephyr.records import Choice
from zephyr.tutor.access import AccessPolicy
from zephyr.tutor.api import create_app
from zephyr.tutor.class_routes import class_routes
from zephyr.tutor.classroom import Classroom
from zephyr.tutor.events import EventLog
from zephyr.tutor.quizzes import Quizzes
from zephyr.tutor.scheduler import ModelRunner, Scheduler
from zephyr.tutor.serving import ServedModel, ServingEngine, load_served_models
from zephyr.tutor.settings import TutorSettings
from zephyr.tutor.teacher_routes import teacher_routes

TEACHER = "the-token-of-the-teacher"
USER_MESSAGE = {"role": "user", "content": "What is force? (3)"}
QUIZ = [Choice("quiz", f"{n} + {n}?", (str(2 * n), str(n), "7"), 0) for n in range(1, 4)]
TUTOR = TutorSettings.model_validate({"course": "Physics", "limits": {"tokens": 12}})
CHAT_PATH, COMPLETIONS_PATH = "/v1/chat/completions", "/v1/completions"


class TutorApp(NamedTuple):
    """A tutor app, its serving engine and its event log."""

    app: Any
    serving: ServingEngine
    events: EventLog


@contextmanager
def open_app(workspace: Workspace, *models: str, password: str | None = None) -> Iterator[TutorApp]:
    """Opens an app that serves models of a workspace's recipe."""
    serving = load_served_models(
        {name: Lineage.read(workspace.run_folder(name) / "artifact") for name in models},
        dict.fromkeys(models, "a tiny model"),
        workspace.runs,
        batch=TUTOR.limits.batch,
        queue=TUTOR.limits.queue,
    )
    with _open(serving, password) as tutor_app:
        yield tutor_app


@contextmanager
def open_chatml_app() -> Iterator[TutorApp]:
    """Opens an app with two models whose chat template is ChatML (special-token markers)."""
    tokenizer = copy.deepcopy(tiny.tokenizer())
    markers = {"additional_special_tokens": ["<|im_start|>"], "eos_token": "<|im_end|>"}
    tokenizer.add_special_tokens(markers)
    tokenizer.chat_template = TEMPLATE
    causal = tiny.qwen2()
    causal.resize_token_embeddings(len(tokenizer))
    model = build_model(causal, tokenizer, token_budget=256)
    runners = {name: ModelRunner(model.causal, model.template, [name]) for name in ("M1", "M2")}
    scheduler = Scheduler(list(runners.values()), batch=4, queue=4)
    models = {
        name: ServedModel(name, "a tiny model", runner, model, scheduler)
        for name, runner in runners.items()
    }
    scheduler.start()
    with _open(ServingEngine(models, scheduler), None) as tutor_app:
        yield tutor_app


@contextmanager
def _open(serving: ServingEngine, password: str | None) -> Iterator[TutorApp]:
    with tempfile.TemporaryDirectory(prefix="zephyr-class-") as folder:
        events = EventLog(Path(folder) / "tutor.sqlite")
        classroom = Classroom(serving, TUTOR, events, Quizzes(QUIZ, 1))
        routers = (class_routes(classroom), teacher_routes(classroom))
        try:
            app = create_app(serving, TUTOR, AccessPolicy(password, TEACHER), routers)
            yield TutorApp(app, serving, events)
        finally:
            serving.scheduler.shutdown()
            events.close()


def user_message(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def chat_body(**other: Any) -> dict[str, Any]:
    return {"model": "M1", "messages": [USER_MESSAGE], "max_tokens": 4, "temperature": 0} | other


def check_error(reply: Reply, *statuses: int) -> dict[str, Any]:
    """Checks that a reply is an API error of the common form, and returns it."""
    assert reply.exception is None
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


def check_still_answers(tutor_app: TutorApp) -> None:
    """Checks that the app still answers, and that no request is waiting or running."""
    reply = call(tutor_app.app, "POST", CHAT_PATH, chat_body(max_tokens=2))
    assert reply.status == 200
    assert reply.json["choices"][0]["message"]["content"]
    assert tutor_app.serving.scheduler.stats[:2] == (0, 0)
