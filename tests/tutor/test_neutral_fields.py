"""Fields that ask for nothing are accepted, and change no answer; what asks for more is refused."""

from typing import Any

import pytest

from tests.tutor.apps import CHAT_PATH, COMPLETIONS_PATH, chat_body, check_error, user_message
from tests.tutor.asgi import call

COMPLETION_BODY = {"model": "M1", "prompt": "The force", "max_tokens": 4, "temperature": 0}
NEUTRAL: list[tuple[str, Any]] = [
    ("tools", []), ("tools", None), ("tool_choice", "none"), ("tool_choice", "auto"),
    ("functions", []), ("function_call", "none"), ("parallel_tool_calls", False),
    ("parallel_tool_calls", True), ("metadata", {}), ("metadata", {"course": "A"}),
    ("store", False), ("store", None), ("service_tier", "auto"), ("service_tier", "default"),
    ("logit_bias", {}), ("logit_bias", {"7": 0}), ("frequency_penalty", 0),
    ("frequency_penalty", 0.0), ("presence_penalty", 0), ("presence_penalty", None),
    ("repetition_penalty", 1.0), ("top_k", -1), ("top_k", 0), ("min_p", 0.0),
    ("reasoning_effort", None), ("reasoning_effort", "none"), ("verbosity", "medium"),
    ("modalities", ["text"]), ("prediction", None), ("audio", None), ("web_search_options", None),
    ("chat_template_kwargs", {"enable_thinking": False}), ("thinking", {"type": "disabled"}),
    ("skip_special_tokens", True), ("prompt_cache_key", "a"), ("safety_identifier", "b"),
    ("cache_prompt", True), ("user", None), ("user", ""), ("seed", None), ("n", None), ("n", 1),
    ("stop", None), ("stop", []), ("stop", ""), ("stream", None), ("stream", False),
    ("stream_options", None), ("stream_options", {}), ("stream_options", {"include_usage": False}),
    ("temperature", 0), ("top_p", None), ("top_p", 1), ("a_field_of_tomorrow", {}),
    ("a_field_of_tomorrow", False), ("a_field_of_tomorrow", ""),
]  # fmt: skip
NEUTRAL_IN_CHATS: list[tuple[str, Any]] = [
    ("response_format", None), ("response_format", {"type": "text"}), ("logprobs", False),
    ("logprobs", None), ("top_logprobs", 0), ("top_logprobs", None),
    ("max_completion_tokens", None), ("max_completion_tokens", 4),
]  # fmt: skip
NEUTRAL_IN_COMPLETIONS: list[tuple[str, Any]] = [
    ("echo", False), ("suffix", None), ("suffix", ""), ("best_of", 1), ("best_of", None),
    ("logprobs", False), ("logprobs", None), ("prompt", ["The force"]),
]  # fmt: skip
ASKING: list[tuple[str, Any]] = [
    ("tools", [{"type": "function", "function": {"name": "f"}}]), ("tool_choice", "required"),
    ("tool_choice", {"type": "function", "function": {"name": "f"}}),
    ("functions", [{"name": "f"}]), ("store", True), ("service_tier", "flex"),
    ("logit_bias", {"7": 5}), ("frequency_penalty", 0.5), ("presence_penalty", -1),
    ("repetition_penalty", 1.1), ("top_k", 40), ("min_p", 0.1), ("reasoning_effort", "low"),
    ("modalities", ["text", "audio"]), ("web_search_options", {}), ("skip_special_tokens", False),
    ("chat_template_kwargs", {"enable_thinking": True}), ("thinking", {"type": "enabled"}),
    ("ignore_eos", True), ("guided_json", {"type": "object"}), ("a_field_of_tomorrow", "a"),
]  # fmt: skip
ASKING_IN_COMPLETIONS: list[tuple[str, Any]] = [("echo", True), ("suffix", "x"), ("best_of", 3)]


@pytest.fixture(scope="module")
def answers(tutor_app: Any) -> dict[str, Any]:
    """The answers to the two bodies without further fields."""
    return {
        CHAT_PATH: call(tutor_app.app, "POST", CHAT_PATH, chat_body()).json["choices"],
        COMPLETIONS_PATH: call(tutor_app.app, "POST", COMPLETIONS_PATH, COMPLETION_BODY).json[
            "choices"
        ],
    }


@pytest.mark.parametrize(
    ("path", "key", "value"),
    [
        *((CHAT_PATH, *field) for field in NEUTRAL + NEUTRAL_IN_CHATS),
        *((COMPLETIONS_PATH, *field) for field in NEUTRAL + NEUTRAL_IN_COMPLETIONS),
    ],
)
def test_a_field_that_asks_for_nothing_changes_nothing(
    tutor_app: Any, answers: dict[str, Any], path: str, key: str, value: Any
) -> None:
    body = (chat_body() if path == CHAT_PATH else COMPLETION_BODY) | {key: value}
    reply = call(tutor_app.app, "POST", path, body)
    assert reply.status == 200, reply.body
    assert reply.json["choices"] == answers[path]


@pytest.mark.parametrize(
    ("path", "key", "value"),
    [
        *((CHAT_PATH, *field) for field in ASKING),
        *((COMPLETIONS_PATH, *field) for field in ASKING + ASKING_IN_COMPLETIONS),
    ],
)
def test_a_field_that_asks_for_something_is_refused_by_its_name(
    tutor_app: Any, path: str, key: str, value: Any
) -> None:
    body = (chat_body() if path == CHAT_PATH else COMPLETION_BODY) | {key: value}
    error = check_error(call(tutor_app.app, "POST", path, body), 400)
    assert (error["code"], error["param"]) == ("unsupported_parameter", key)
    assert f"'{key}'" in error["message"]


def test_fields_of_a_message_and_of_a_part_are_judged_alike(tutor_app: Any) -> None:
    part = {
        "type": "text",
        "text": "What is force? (3)",
        "annotations": [],
        "cache_control": {"a": 1},
    }
    message = user_message([part]) | {"id": "m1", "name": None, "timestamp": 5, "audio": None}
    reply = call(tutor_app.app, "POST", CHAT_PATH, chat_body(messages=[message]))
    assert (
        reply.json["choices"] == call(tutor_app.app, "POST", CHAT_PATH, chat_body()).json["choices"]
    )
    asking = user_message([part | {"annotations": [{"type": "url_citation"}]}])
    reply = call(tutor_app.app, "POST", CHAT_PATH, chat_body(messages=[message, asking]))
    assert check_error(reply, 400)["param"] == "messages[1].content[0].annotations"
