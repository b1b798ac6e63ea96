"""Apps within this process, with real models behind them, and what every error is like."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from bench.shape import TEMPLATE
from tests import tiny
from tests.place import Place
from tests.tutor.asgi import Reply, call
from zephyr.model.load import Lineage, assemble
from zephyr.tutor.access import Access
from zephyr.tutor.api import make_app
from zephyr.tutor.scheduler import Network, Scheduler
from zephyr.tutor.serving import Served, Serving, open_models
from zephyr.tutor.settings import Tutor

TEACHER = "the-token-of-the-teacher"
ASK = {"role": "user", "content": "What is force? (3)"}
CHAT, COMPLETE = "/v1/chat/completions", "/v1/completions"


class Classroom(NamedTuple):
    """An app, and the models behind it."""

    app: Any
    serving: Serving


@contextmanager
def classroom(place: Place, *models: str, password: str | None = None) -> Iterator[Classroom]:
    """Models of a place's recipe before a class."""
    tutor = Tutor()
    serving = open_models(
        {name: Lineage.read(place.run(name) / "artifact") for name in models},
        dict.fromkeys(models, "a tiny model"),
        place.runs,
        batch=tutor.limits.batch,
        queue=tutor.limits.queue,
    )
    try:
        yield Classroom(make_app(serving, tutor, Access(password, TEACHER)), serving)
    finally:
        serving.scheduler.end()


@contextmanager
def speaking_chatml() -> Iterator[Classroom]:
    """A model `chatml` whose conversations have the markers of Qwen's, as special tokens."""
    tokenizer = copy.deepcopy(tiny.tokenizer())
    markers = {"additional_special_tokens": ["<|im_start|>"], "eos_token": "<|im_end|>"}
    tokenizer.add_special_tokens(markers)
    tokenizer.chat_template = TEMPLATE
    causal = tiny.qwen2()
    causal.resize_token_embeddings(len(tokenizer))
    model = assemble(causal, tokenizer, token_budget=256)
    network = Network(model.causal, model.template, ["chatml"])
    scheduler = Scheduler([network], batch=4, queue=4)
    served = Served("chatml", "a tiny model", network, model, scheduler)
    serving = Serving({"chatml": served}, scheduler)
    scheduler.start()
    try:
        yield Classroom(make_app(serving, Tutor(), Access(None, TEACHER)), serving)
    finally:
        scheduler.end()


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


def still_answers(room: Classroom) -> None:
    """Asks for an answer, and sees to it that nothing else is still being answered."""
    reply = call(room.app, "POST", CHAT, chat(max_tokens=2))
    assert reply.status == 200
    assert reply.json["choices"][0]["message"]["content"]
    assert room.serving.scheduler.counts[:2] == (0, 0)
