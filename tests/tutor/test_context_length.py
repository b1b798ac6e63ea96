"""Prompts that are too long: refused before they are tokenized, which never blocks others."""

import asyncio
import threading
from typing import Any

import pytest

from tests import tiny
from tests.tutor.apps import (
    CHAT_PATH,
    COMPLETIONS_PATH,
    TutorApp,
    chat_body,
    check_error,
    user_message,
)
from tests.tutor.asgi import call, call_async
from zephyr.errors import ZephyrError
from zephyr.model.template import ChatTemplate
from zephyr.records import Message
from zephyr.tutor.scheduler import ModelRunner, Scheduler
from zephyr.tutor.serving import PIECE_CHARACTERS, ServedModel

DIGITS = "3141592653" * 800
TURNS = [user_message(DIGITS), {"role": "assistant", "content": DIGITS}]
LONG_CHAT = [*TURNS * 99, user_message(DIGITS)]
ENCODERS = ("encode_prompt", "encode_text")


def forbid(*arguments: Any) -> Any:
    raise AssertionError("nothing is to be tokenized")


def test_a_megabyte_of_digits_is_refused_without_a_token(
    tutor_app: TutorApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ENCODERS:
        monkeypatch.setattr(ChatTemplate, name, forbid)
    reply = call(tutor_app.app, "POST", CHAT_PATH, chat_body(messages=LONG_CHAT))
    assert len(LONG_CHAT) * len(DIGITS) > 1_590_000
    error = check_error(reply, 400)
    assert (error["code"], error["param"]) == ("context_length_exceeded", "messages")
    context_length = tutor_app.serving.models["M1"].context_length
    start = (
        f"This model's maximum context length is {context_length} tokens. However, your messages"
    )
    assert error["message"].startswith(start)


def test_a_prompt_has_the_code_too(tutor_app: TutorApp) -> None:
    body = {"model": "M1", "prompt": "force mass " * 700}
    error = check_error(call(tutor_app.app, "POST", COMPLETIONS_PATH, body), 400)
    assert (error["code"], error["param"]) == ("context_length_exceeded", "prompt")


def test_others_are_answered_while_a_conversation_is_tokenized(
    tutor_app: TutorApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, may_end = threading.Event(), threading.Event()
    encode_prompt = ChatTemplate.encode_prompt

    def encode_slowly(self: ChatTemplate, messages: Any) -> Any:
        began.set()
        assert may_end.wait(30)
        return encode_prompt(self, messages)

    monkeypatch.setattr(ChatTemplate, "encode_prompt", encode_slowly)

    async def scenario() -> tuple[int, int]:
        slow = asyncio.create_task(call_async(tutor_app.app, "POST", CHAT_PATH, chat_body()))
        await asyncio.to_thread(began.wait, 30)
        other = await call_async(tutor_app.app, "GET", "/v1/models")
        assert not slow.done()
        may_end.set()
        return other.status, (await slow).status

    assert asyncio.run(scenario()) == (200, 200)


def test_a_text_is_tokenized_no_further_than_twice_the_context(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where a tokenizer gives no bound by bytes, and whether in one message or in many."""
    model = tiny.make_model("qwen2")
    runner = ModelRunner(model.causal, model.template, ["M1"])
    runner.token_bytes.max_bytes_per_token = None
    served = ServedModel("M1", "", runner, model, Scheduler([runner], batch=1, queue=1))
    num_characters = 0
    encode_text = ChatTemplate.encode_text

    def count(self: ChatTemplate, text: str) -> Any:
        nonlocal num_characters
        num_characters += len(text)
        return encode_text(self, text)

    monkeypatch.setattr(ChatTemplate, "encode_text", count)
    for messages in (
        [Message("user", "7" * 1_000_000)],
        [Message("user", "7"), Message("assistant", "7")] * 50_000 + [Message("user", "7")],
    ):
        num_characters = 0
        with pytest.raises(ZephyrError, match="maximum context length is 128 tokens"):
            asyncio.run(served.make_request(messages))
        assert 0 < num_characters <= PIECE_CHARACTERS


def test_the_limit_is_exact(tutor_app: TutorApp) -> None:
    served = tutor_app.serving.models["M1"]
    with_one = served.template.encode_prompt([Message("user", "7")])
    room = served.context_length - len(with_one)  # a digit is a token
    fits, too_long = (
        call(tutor_app.app, "POST", CHAT_PATH, chat_body(messages=[user_message("7" * n)]))
        for n in (room, room + 1)
    )
    assert fits.status == 200
    assert fits.json["usage"] == {
        "prompt_tokens": served.context_length - 1,
        "completion_tokens": 1,
        "total_tokens": served.context_length,
    }
    assert f"resulted in {served.context_length} tokens" in check_error(too_long, 400)["message"]
