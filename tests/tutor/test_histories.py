"""Histories as clients send them back, and the errors of those that can't be read."""

from typing import Any

import pytest

from tests.tutor.apps import CHAT_PATH, chat_body, check_error, user_message
from tests.tutor.asgi import call
from zephyr.records import Message
from zephyr.tutor.openai_schema import ChatCompletionRequest


def system(content: Any, role: str = "system") -> dict[str, Any]:
    return {"role": role, "content": content}


def assistant(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


USER, ASSISTANT = Message("user", "Why?"), Message("assistant", "Because.")
ASK, ANSWER = user_message("Why?"), assistant("Because.")
OWN_ANSWER = assistant(
    "Because.", refusal=None, annotations=[], audio=None, function_call=None, tool_calls=None
)
HISTORIES: dict[str, tuple[list[dict[str, Any]], list[Message]]] = {
    "its own answer": ([ASK, OWN_ANSWER, ASK], [USER, ASSISTANT, USER]),
    "no tools called": ([ASK, assistant("Because.", tool_calls=[]), ASK], [USER, ASSISTANT, USER]),
    "thoughts": (
        [ASK, assistant("Because.", reasoning_content="Hm."), ASK],
        [USER, ASSISTANT, USER],
    ),
    "an empty answer": ([ASK, assistant(""), ASK], [USER, Message("assistant", ""), USER]),
    "a null answer": ([ASK, assistant(None), ASK], [USER, Message("assistant", ""), USER]),
    "no content": ([ASK, {"role": "assistant"}, ASK], [USER, Message("assistant", ""), USER]),
    "no parts": ([ASK, assistant([]), ASK], [USER, Message("assistant", ""), USER]),
    "a question sent again": ([ASK, ASK], [Message("user", "Why?\n\nWhy?")]),
    "an empty question before": ([user_message(" "), ASK], [Message("user", "Why?")]),
    "two answers": (
        [ASK, ANSWER, ANSWER, ASK],
        [USER, Message("assistant", "Because.\n\nBecause."), USER],
    ),
    "a greeting": ([ANSWER, ASK], [ASSISTANT, USER]),
    "a greeting before the system": (
        [ANSWER, system("Be brief."), ASK],
        [Message("system", "Be brief."), ASSISTANT, USER],
    ),
    "a developer": (
        [system("Be brief.", "developer"), ASK],
        [Message("system", "Be brief."), USER],
    ),
    "two systems": (
        [system("Be kind."), system("Be brief.", "developer"), ASK],
        [Message("system", "Be kind.\n\nBe brief."), USER],
    ),
    "a blank system": ([system(" \n"), ASK], [USER]),
    "a null system": ([system(None), ASK], [USER]),
    "parts": (
        [user_message([{"type": "text", "text": "W"}, {"type": "text", "text": "hy?"}])],
        [USER],
    ),
    "a name": ([ASK | {"name": "Ada"}], [USER]),
    "an empty name": ([ASK | {"name": ""}], [USER]),
}


@pytest.mark.parametrize(("messages", "expected"), HISTORIES.values(), ids=HISTORIES)
def test_a_history_is_read(messages: Any, expected: list[Message]) -> None:
    body = ChatCompletionRequest.model_validate({"model": "M1", "messages": messages})
    assert body.conversation == expected


@pytest.mark.parametrize("messages", [found for found, _ in HISTORIES.values()], ids=HISTORIES)
def test_a_history_is_answered(app: Any, messages: Any) -> None:
    assert call(app, "POST", CHAT_PATH, chat_body(messages=messages)).status == 200


def test_its_own_message_can_be_sent_back(app: Any) -> None:
    first = call(app, "POST", CHAT_PATH, chat_body()).json["choices"][0]["message"]
    messages = [*chat_body()["messages"], first, ASK]
    assert call(app, "POST", CHAT_PATH, chat_body(messages=messages)).status == 200


TOOL_CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
WRONG: dict[str, tuple[list[Any], str, str, str]] = {
    "a late system": (
        [ASK, ANSWER, system("Be brief."), ASK],
        "messages[2].role",
        "invalid_value",
        "before the first user",
    ),
    "an answer last": ([ASK, ANSWER], "messages[1].role", "invalid_value", "must be the user's"),
    "an empty question": (
        [ASK, ANSWER, user_message("\t")],
        "messages[2].content",
        "invalid_value",
        "must have a text",
    ),
    "a tool call": (
        [ASK, assistant(None, tool_calls=[TOOL_CALL]), ASK],
        "messages[1].tool_calls",
        "unsupported_parameter",
        "not supported",
    ),
    "a tool's answer": (
        [ASK, {"role": "tool", "content": "4", "tool_call_id": "1"}],
        "messages[1].role",
        "invalid_value",
        "'system', 'developer', 'user' or 'assistant'",
    ),
    "an image": (
        [ASK, ANSWER, user_message([{"type": "image_url", "image_url": {"url": "x"}}])],
        "messages[2].content[0].type",
        "invalid_value",
        "'text'",
    ),
    "a number": ([user_message(5)], "messages[0].content", "invalid_type", "an integer"),
    "no role": (
        [{"content": "Why?"}],
        "messages[0].role",
        "missing_required_parameter",
        "Missing required parameter",
    ),
    "no message": ([ASK, 5], "messages[1]", "invalid_type", "expected an object"),
    "none": ([], "messages", "array_below_min_length", "minimum length 1"),
}


@pytest.mark.parametrize(("messages", "param", "code", "text"), WRONG.values(), ids=WRONG)
def test_an_error_names_the_message(
    tutor_app: Any, messages: Any, param: str, code: str, text: str
) -> None:
    reply = call(tutor_app.app, "POST", CHAT_PATH, chat_body(messages=messages))
    error = check_error(reply, 400)
    assert (error["param"], error["code"]) == (param, code)
    assert f"'{param}'" in error["message"]
    assert text in error["message"]


WRONG_FIELDS: dict[str, tuple[Any, str, str]] = {
    "stop": ([5], "stop[0]", "invalid_type"),
    "n": (9, "n", "integer_above_max_value"),
    "max_tokens": (0, "max_tokens", "integer_below_min_value"),
    "temperature": (2.5, "temperature", "decimal_above_max_value"),
    "top_p": ("much", "top_p", "invalid_type"),
    "stream_options": ({"include_usage": "yes"}, "stream_options.include_usage", "invalid_type"),
    "response_format": ({"type": "json_object"}, "response_format.type", "invalid_value"),
    "user": (5, "user", "invalid_type"),
    "model": (None, "model", "invalid_type"),
    "messages": ("Why?", "messages", "invalid_type"),
}
NAMES_OF_PYDANTIC = ("constrained", "function-", "list[", "pydantic", "union", "Input should")


@pytest.mark.parametrize("name", WRONG_FIELDS)
def test_an_error_has_the_code_and_the_words_of_openai(tutor_app: Any, name: str) -> None:
    value, param, code = WRONG_FIELDS[name]
    error = check_error(call(tutor_app.app, "POST", CHAT_PATH, chat_body(**{name: value})), 400)
    assert (error["param"], error["code"]) == (param, code)
    assert not [word for word in NAMES_OF_PYDANTIC if word in error["message"]], error["message"]


def test_a_stop_string_may_be_one_or_in_a_list(tutor_app: Any) -> None:
    one, several, too_long, too_many = (
        call(tutor_app.app, "POST", CHAT_PATH, chat_body(stop=stop))
        for stop in ("e", ["e"], "e" * 65, ["e"] * 5)
    )
    assert one.json["choices"] == several.json["choices"]
    assert check_error(too_long, 400)["code"] == "string_above_max_length"
    assert check_error(too_many, 400)["code"] == "array_above_max_length"
