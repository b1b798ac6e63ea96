"""OpenAI-compatible API routes: /v1/models, /v1/chat/completions and /v1/completions."""

import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from zephyr.errors import ZephyrError
from zephyr.model.decoding import SamplingParams
from zephyr.records import Message
from zephyr.tutor.answer_stream import GenerationRequest
from zephyr.tutor.api_errors import ApiError, error_responses
from zephyr.tutor.openai_responses import ChatResponseBuilder, CompletionResponseBuilder
from zephyr.tutor.openai_schema import (
    BaseCompletionRequest,
    ChatCompletionRequest,
    CompletionRequest,
)
from zephyr.tutor.serving import ContextLengthError, ServedModel, ServingEngine
from zephyr.tutor.settings import TutorSettings
from zephyr.tutor.sse import STREAM_RESPONSES

OnAnswer = Callable[[str, str | None, Sequence[Message], Sequence[str]], Awaitable[None]]
"""Callback after a request: the model, the user, the messages and the full answers."""


async def ignore_answer(
    model: str, user: str | None, messages: Sequence[Message], answers: Sequence[str]
) -> None:
    """The `OnAnswer` callback that records nothing."""


def openai_routes(
    serving: ServingEngine, settings: TutorSettings, on_answer: OnAnswer = ignore_answer
) -> APIRouter:
    """The OpenAI-compatible router (/v1); answers equal `Model.generate` with the same seed."""
    router = APIRouter(prefix="/v1", tags=["OpenAI"])
    created = int(time.time())

    @router.get("/models", summary="The models that are served", responses=error_responses())
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [_model_entry(name, created) for name in serving.models]}

    @router.get("/models/{model}", summary="One of the models", responses=error_responses(404))
    async def model(model: str) -> dict[str, Any]:
        return _model_entry(find_model(serving, model).name, created)

    @router.post(
        "/chat/completions",
        summary="The answer to a conversation",
        responses=error_responses(404, 503) | STREAM_RESPONSES,
        response_model=None,
    )
    async def chat(request: Request, body: ChatCompletionRequest) -> Response:
        _check_ask_allowed(settings)
        served = find_model(serving, body.model)
        for at, message in enumerate(body.messages):
            check_message_length(settings, message.text, f"messages[{at}].content")
        messages = with_system_message(settings, body.conversation)
        try:
            generation_request = await served.make_request(
                messages,
                max_new_tokens=min(
                    body.max_new_tokens or settings.limits.tokens, settings.limits.tokens
                ),
                sampling=_sampling(body, settings),
                stop=body.stop,
                top_logprobs=body.num_top_logprobs,
                client=client_key(request, body.user),
            )
        except ContextLengthError:
            raise
        except ZephyrError as error:  # only what stands before the first user message is unusual
            raise ApiError(400, f"messages[0]: {error}", param="messages[0]") from error

        async def on_complete(answers: Sequence[str]) -> None:
            await on_answer(served.name, body.user, body.conversation, answers)

        answers = serving.scheduler.submit(*_requests_with_seeds(generation_request, body))
        return await ChatResponseBuilder(served, body, answers).respond(request, on_complete)

    @router.post(
        "/completions",
        summary="A text that goes on",
        responses=error_responses(404, 503) | STREAM_RESPONSES,
        response_model=None,
    )
    async def complete(request: Request, body: CompletionRequest) -> Response:
        _check_ask_allowed(settings)
        served = find_model(serving, body.model)
        generation_requests: list[GenerationRequest] = []
        for at, prompt in enumerate(body.prompt):
            check_message_length(settings, prompt, f"prompt[{at}]")
        for prompt in body.prompt:
            generation_request = await served.make_text_request(
                prompt,
                max_new_tokens=min(body.max_tokens or 16, settings.limits.tokens),
                sampling=_sampling(body, settings),
                stop=tuple(body.stop),
                top_logprobs=body.logprobs,
                client=client_key(request, body.user),
            )
            generation_requests += _requests_with_seeds(generation_request, body)

        async def on_complete(answers: Sequence[str]) -> None:
            for at, prompt in enumerate(body.prompt):
                found = answers[at * body.n : (at + 1) * body.n]
                await on_answer(served.name, body.user, [Message("user", prompt)], found)

        answers = serving.scheduler.submit(*generation_requests)
        return await CompletionResponseBuilder(served, body, answers).respond(request, on_complete)

    return router


def client_key(request: Request, user: str | None) -> str:
    """Who asks, for the scheduler's turns: the session (`user`), else API key and address."""
    address = request.client.host if request.client is not None else ""
    return user or f"{address} {request.headers.get('authorization', '')}"


def find_model(serving: ServingEngine, name: str) -> ServedModel:
    """Looks up a served model by name.

    Raises:
        ApiError: there is none (404).
    """
    if name not in serving.models:
        short_name = name if len(name) <= 64 else f"{name[:63]}…"
        text = f"The model `{short_name}` does not exist; there are {', '.join(serving.models)}."
        raise ApiError(404, text, code="model_not_found", param="model")
    return serving.models[name]


def with_system_message(settings: TutorSettings, messages: Sequence[Message]) -> list[Message]:
    """Prepends the course's system message, if any, to a student's conversation.

    Raises:
        ApiError: the student sets a system message beside the course's.
    """
    if settings.system is None:
        return list(messages)
    if messages[0].role == "system":
        text = "messages: the course sets the system message; leave yours out"
        raise ApiError(400, text, param="messages")
    return [Message("system", settings.system), *messages]


def check_message_length(settings: TutorSettings, text: str, param: str) -> None:
    """Checks a text against the maximum message length (`limits.message`).

    Raises:
        ApiError: the text is too long (400).
    """
    if len(text) > settings.limits.message:
        problem = (
            f"{param}: a message has {len(text):,} characters; "
            f"at most {settings.limits.message:,} are read"
        )
        raise ApiError(400, problem, code="message_too_long", param=param)


def _check_ask_allowed(settings: TutorSettings) -> None:
    if "ask" not in settings.ways:
        text = f"this course does not let models be asked freely, but: {', '.join(settings.ways)}"
        raise ApiError(403, text, code="not_a_way")


def _sampling(body: BaseCompletionRequest, settings: TutorSettings) -> SamplingParams:
    """Sampling params of a request, with the settings' temperature as the default."""
    temperature = settings.temperature if body.temperature is None else body.temperature
    return SamplingParams(temperature, 1.0 if body.top_p is None else body.top_p)


def _requests_with_seeds(
    request: GenerationRequest, body: BaseCompletionRequest
) -> list[GenerationRequest]:
    """One generation request for each of `n` completions, with consecutive seeds."""
    first_seed = secrets.randbelow(2**31) if body.seed is None else body.seed
    seeds = [first_seed + at if first_seed < 2**62 else first_seed - at for at in range(body.n)]
    return [replace(request, seed=seed) for seed in seeds]


def _model_entry(name: str, created: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": "zephyr"}
