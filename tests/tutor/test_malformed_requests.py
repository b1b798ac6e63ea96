"""Whatever is asked, the answer is a clear error in OpenAI's form, and the next one is answered."""

import json
from typing import Any

import pytest

from tests.tutor.apps import (
    CHAT_PATH,
    COMPLETIONS_PATH,
    USER_MESSAGE,
    chat_body,
    check_error,
    user_message,
)
from tests.tutor.asgi import call
from zephyr.tutor.access import MAX_BODY_BYTES

NOT_JSON = {
    "nothing": b"",
    "a brace": b"{",
    "half": b'{"model": "M1", "messages": [{"role": "us',
    "two": b"{} {}",
    "no utf-8": b'{"model": "\xff\xfe"}',
    "utf-16": '{"model": "M1"}'.encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf" + json.dumps(chat_body()).encode()[:-1],
    "zeros": b"\0" * 1000,
    "a form": b"model=M1&messages=none",
    "xml": b"<?xml version='1.0'?><!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]><a>&b;</a>",
    "an endless number": b'{"model": "M1", "seed": ' + b"9" * 100_000 + b"}",
    "a huge exponent": json.dumps(chat_body()).encode()[:-1] + b', "temperature": 1e999999}',
    "not a number": json.dumps(chat_body()).encode()[:-1] + b', "temperature": NaN}',
    "infinity": json.dumps(chat_body()).encode()[:-1] + b', "top_p": Infinity}',
    "lists in lists": b"[" * 500_000,
    "closed lists in lists": b"[" * 100_000 + b"]" * 100_000,
    "objects in objects": b'{"a":' * 200_000,
    "deep messages": b'{"model": "M1", "messages": ' + b"[" * 900 + b"]" * 900 + b"}",
}


@pytest.mark.parametrize("path", [CHAT_PATH, COMPLETIONS_PATH])
@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON)
def test_what_is_no_json_is_refused(app: Any, path: str, body: bytes) -> None:
    check_error(call(app, "POST", path, body), 400)


@pytest.mark.parametrize("path", [CHAT_PATH, COMPLETIONS_PATH])
@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "", "\xff/;;"])
def test_a_body_of_another_kind_is_refused(app: Any, path: str, kind: str) -> None:
    check_error(call(app, "POST", path, chat_body(), {"content-type": kind}), 400)


@pytest.mark.parametrize("path", [CHAT_PATH, COMPLETIONS_PATH])
@pytest.mark.parametrize(
    "body", [None, [], {}, "text", 5, True, [chat_body()], {"model": {}}, {"": {}}]
)
def test_what_is_no_request_is_refused(app: Any, path: str, body: Any) -> None:
    check_error(call(app, "POST", path, json.dumps(body).encode()), 400)


ASSISTANT = {"role": "assistant", "content": "It is word 0 of eight."}
SYSTEM = {"role": "system", "content": "Be brief."}
BAD_MESSAGES: dict[str, Any] = {
    "none": None,
    "no list": {"0": USER_MESSAGE},
    "text": "What is force?",
    "empty": [],
    "of nulls": [None],
    "of numbers": [5],
    "of nothing": [{}],
    "of lists": [[USER_MESSAGE]],
    "without content": [{"role": "user"}],
    "without role": [{"content": "What is force?"}],
    "of nobody": [{"role": "wizard", "content": "What is force?"}],
    "of a number's role": [{"role": 5, "content": "What is force?"}],
    "null": [user_message(None)],
    "a number": [user_message(5)],
    "an object": [user_message({"type": "text", "text": "What is force?"})],
    "no parts": [user_message([])],
    "a part of nothing": [user_message([{}])],
    "an image": [user_message([{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}])],
    "a part without text": [user_message([{"type": "text"}])],
    "many parts": [user_message([{"type": "text", "text": "a"}] * 1_000)],
    "empty text": [user_message("")],
    "white space": [user_message(" \n\t\u2028")],
    "of the system alone": [SYSTEM],
    "of the assistant alone": [ASSISTANT],
    "the assistant last": [USER_MESSAGE, ASSISTANT],
    "the system second": [USER_MESSAGE, SYSTEM, USER_MESSAGE],
    "a tool": [USER_MESSAGE, {"role": "tool", "content": "4", "tool_call_id": "1"}, USER_MESSAGE],
    "with another key": [{**USER_MESSAGE, "admin": True}],
    "without end": [USER_MESSAGE, *[ASSISTANT, USER_MESSAGE] * 5_000],
    "longer than the context": [user_message("force mass " * 500)],
    "one character a million times": [user_message("a" * 2**20)],
    "another as long": [user_message("\U0001f600" * 2**17)],
    "a lone surrogate": [user_message("\ud800")],
    "a lone surrogate in a word": [user_message("What is \udfff force?")],
    "a pair the wrong way": [user_message("\udc00\ud800")],
    "a surrogate's role": [{"role": "\ud800", "content": "a"}],
    "a surrogate's key": [{**USER_MESSAGE, "\ud800": 1}],
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("messages", BAD_MESSAGES.values(), ids=BAD_MESSAGES)
def test_messages_that_are_none_are_refused(app: Any, messages: Any, stream: bool) -> None:
    check_error(call(app, "POST", CHAT_PATH, chat_body(messages=messages, stream=stream)), 400)


HUGE = 10**30
BAD_PARAMETERS: list[tuple[str, Any]] = [
    ("model", None), ("model", 5), ("model", ""), ("model", ["M1"]), ("model", "M" * 10_000),
    ("temperature", -0.1), ("temperature", 3), ("temperature", 1e308), ("temperature", "hot"),
    ("temperature", [0]), ("temperature", HUGE),
    ("top_p", 0), ("top_p", -1), ("top_p", 1.01), ("top_p", "all"),
    ("max_tokens", 0), ("max_tokens", -1), ("max_tokens", HUGE), ("max_tokens", 1.5),
    ("max_tokens", "many"), ("max_tokens", True), ("max_tokens", [1]),
    ("seed", 2**63), ("seed", -HUGE), ("seed", 1.5), ("seed", "x"), ("seed", {}),
    ("n", 0), ("n", -1), ("n", 1_000), ("n", HUGE), ("n", 2.5),
    ("stop", [""]), ("stop", ["a"] * 100), ("stop", 5), ("stop", [None]),
    ("stop", "a" * 100_000), ("stop", "\ud800"),
    ("stream", "maybe"), ("stream", 5), ("stream", {}),
    ("stream_options", 5), ("stream_options", {"include_usage": "yes"}),
    ("frequency_penalty", 1), ("presence_penalty", -1), ("frequency_penalty", "a"),
    ("user", 5), ("user", "\ud800"),
    ("logit_bias", {"5": 100}), ("tools", [{}]), ("adapter", "../../secret"), ("__class__", "a"),
]  # fmt: skip
BAD_CHAT_PARAMETERS: list[tuple[str, Any]] = [
    ("top_logprobs", 5), ("top_logprobs", -1), ("top_logprobs", 21), ("logprobs", 5),
    ("max_completion_tokens", 0), ("max_completion_tokens", HUGE),
    ("response_format", {"type": "json_object"}),
]  # fmt: skip
BAD_COMPLETION_PARAMETERS: list[tuple[str, Any]] = [
    ("prompt", None), ("prompt", ""), ("prompt", 5), ("prompt", [[1, 2]]), ("prompt", [1, 2]),
    ("prompt", ["a", ""]), ("prompt", []),
    ("prompt", ["a"] * 100),
    ("prompt", "a" * 2**20), ("prompt", "\ud800"), ("prompt", "force mass " * 500),
    ("logprobs", 6), ("logprobs", -1), ("echo", True), ("best_of", 5),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value"), [*BAD_PARAMETERS, *BAD_CHAT_PARAMETERS])
def test_absurd_parameters_of_a_chat_are_refused(app: Any, key: str, value: Any) -> None:
    check_error(call(app, "POST", CHAT_PATH, chat_body(**{key: value})), 400)


@pytest.mark.parametrize(("key", "value"), [*BAD_PARAMETERS, *BAD_COMPLETION_PARAMETERS])
def test_absurd_parameters_of_a_completion_are_refused(app: Any, key: str, value: Any) -> None:
    body = {"model": "M1", "prompt": "The force", "max_tokens": 2, key: value}
    check_error(call(app, "POST", COMPLETIONS_PATH, body), 400)


@pytest.mark.parametrize("name", ["M3", "m1", "M1 ", "../M1", "M1\0", "M1\n", "{model}", "%s", "é"])
def test_an_unknown_model_is_refused_with_those_that_exist(app: Any, name: str) -> None:
    for path, more in (
        (CHAT_PATH, {"messages": [USER_MESSAGE]}),
        (COMPLETIONS_PATH, {"prompt": "The force"}),
    ):
        error = check_error(call(app, "POST", path, {"model": name, **more}), 404)
        assert (error["code"], error["param"]) == ("model_not_found", "model")
        assert "M1, M2" in error["message"]
    check_error(call(app, "GET", "/v1/models/M3"), 404)


def test_large_bodies_are_refused_before_they_are_read(app: Any) -> None:
    large = MAX_BODY_BYTES + 1
    reply = call(app, "POST", CHAT_PATH, b"", {"content-length": str(large)})
    assert check_error(reply, 413)["code"] == "too_large"
    check_error(call(app, "POST", CHAT_PATH, b"", {"content-length": str(10**30)}), 413)
    part = b" " * (1 << 16)
    parts = [part] * (large // len(part) + 1)
    check_error(call(app, "POST", CHAT_PATH, parts=parts), 413)
    check_error(call(app, "POST", CHAT_PATH, b"", {"content-length": "5"}, parts=parts), 413)


@pytest.mark.parametrize("length", ["-1", "many", "1e3", "", "0x10", "\xb2"])
def test_lengths_that_are_none_are_refused(app: Any, length: str) -> None:
    check_error(call(app, "POST", CHAT_PATH, chat_body(), {"content-length": length}), 400, 413)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "FOO"])
def test_other_methods_are_refused(app: Any, method: str) -> None:
    check_error(call(app, method, CHAT_PATH, chat_body()), 405)
