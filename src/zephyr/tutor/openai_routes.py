"""OpenAI-compatible API routes: /v1/models, /v1/chat/completions and /v1/completions."""

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from zephyr.model.decoding import SamplingParams, TokenLogprob
from zephyr.model.example import to_token_ids
from zephyr.records import Message
from zephyr.tutor import scheduler
from zephyr.tutor.api_errors import ApiError, error_responses
from zephyr.tutor.openai_schema import (
    BaseCompletionRequest,
    ChatCompletionRequest,
    CompletionRequest,
)
from zephyr.tutor.scheduler import AnswerStream, FullAnswer, StreamChunk
from zephyr.tutor.serving import ServedModel, ServingEngine
from zephyr.tutor.settings import TutorSettings
from zephyr.tutor.sse import STREAM_RESPONSES, EventStream, run_until_disconnect

OPENAI_FINISH_REASONS = {"end token": "stop", "stop string": "stop", "length": "length"}

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
        messages = with_system_message(settings, body.conversation)
        generation_request = served.make_request(
            messages,
            max_new_tokens=min(
                body.max_new_tokens or settings.limits.tokens, settings.limits.tokens
            ),
            sampling=_sampling(body, settings),
            stop=body.stop_strings,
            top_logprobs=body.num_top_logprobs,
        )
        response = _ChatResponseBuilder(
            served, body, serving.scheduler.submit(*_requests_with_seeds(generation_request, body))
        )
        return await response.respond(
            request, partial(on_answer, served.name, body.user, body.conversation)
        )

    @router.post(
        "/completions",
        summary="A text that goes on",
        responses=error_responses(404, 503) | STREAM_RESPONSES,
        response_model=None,
    )
    async def complete(request: Request, body: CompletionRequest) -> Response:
        _check_ask_allowed(settings)
        served = find_model(serving, body.model)
        check_message_length(settings, body.prompt)
        prompt = served.template.encode_text(body.prompt)
        free_tokens = served.context_length - len(prompt)
        if free_tokens < 1:
            text = f"prompt: {len(prompt)} tokens leave no room in a context of "
            text += str(served.context_length)
            raise ApiError(400, text, param="prompt")
        max_new_tokens = min(body.max_tokens or 16, settings.limits.tokens, free_tokens)
        generation_request = scheduler.GenerationRequest(
            served.name,
            prompt,
            max_new_tokens,
            _sampling(body, settings),
            stop=body.stop_strings,
            top_logprobs=body.logprobs,
            is_text_completion=True,
        )
        response = _CompletionResponseBuilder(
            served, body, serving.scheduler.submit(*_requests_with_seeds(generation_request, body))
        )
        messages = [Message("user", body.prompt)]
        return await response.respond(request, partial(on_answer, served.name, body.user, messages))

    return router


def find_model(serving: ServingEngine, name: str) -> ServedModel:
    """Looks up a served model by name.

    Raises:
        ApiError: there is none (404).
    """
    if name not in serving.models:
        text = f"there is no model {name!r}; there are {', '.join(serving.models)}"
        raise ApiError(404, text, code="model_not_found", param="model")
    return serving.models[name]


def with_system_message(settings: TutorSettings, messages: Sequence[Message]) -> list[Message]:
    """Prepends the course's system message, if any, to a student's conversation.

    Raises:
        ApiError: a message is too long, or the student sets a system message beside the course's.
    """
    for message in messages:
        check_message_length(settings, message.content)
    if settings.system is None:
        return list(messages)
    if messages[0].role == "system":
        text = "messages: the course sets the system message; leave yours out"
        raise ApiError(400, text, param="messages")
    return [Message("system", settings.system), *messages]


def check_message_length(settings: TutorSettings, text: str, param: str = "messages") -> None:
    """Checks a text against the maximum message length (`limits.message`).

    Raises:
        ApiError: the text is too long (400).
    """
    if len(text) > settings.limits.message:
        problem = (
            f"a message has {len(text):,} characters; at most {settings.limits.message:,} are read"
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
    request: scheduler.GenerationRequest, body: BaseCompletionRequest
) -> list[scheduler.GenerationRequest]:
    """One generation request for each of `n` completions, with consecutive seeds."""
    first_seed = secrets.randbelow(2**31) if body.seed is None else body.seed
    seeds = [first_seed + at if first_seed < 2**62 else first_seed - at for at in range(body.n)]
    return [replace(request, seed=seed) for seed in seeds]


def _model_entry(name: str, created: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": "zephyr"}


class _ResponseBuilder:
    """Builds the response to a request in an endpoint's format: JSON, or a stream of chunks."""

    object_name = ""
    chunk_object_name = ""
    id_prefix = ""

    def __init__(
        self, served: ServedModel, body: BaseCompletionRequest, answers: Sequence[AnswerStream]
    ) -> None:
        self.served, self.body, self.answers = served, body, answers
        self.common_fields = {
            "id": f"{self.id_prefix}-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": served.name,
        }

    async def respond(
        self, request: Request, on_complete: Callable[[Sequence[str]], Awaitable[None]]
    ) -> Response:
        """The JSON or streaming (SSE) response; `on_complete` gets the full answers."""
        if self.body.stream:
            return EventStream(self.stream_chunks(on_complete), self.answers)
        try:
            full_answers = await run_until_disconnect(request, _collect_all(self.answers))
        finally:
            for answer in self.answers:
                answer.close()
        await on_complete([full_answer.text for full_answer in full_answers])
        choices = [self.choice(at, full_answer) for at, full_answer in enumerate(full_answers)]
        counts = [len(full_answer.tokens) for full_answer in full_answers]
        fields = {"object": self.object_name, **self.common_fields}
        return JSONResponse(fields | {"choices": choices, "usage": self.usage(counts)})

    async def stream_chunks(
        self, on_complete: Callable[[Sequence[str]], Awaitable[None]]
    ) -> AsyncGenerator[dict[str, Any]]:
        """Yields the streaming chunks (`chat.completion.chunk`) of all answers as they come."""
        counts = [0] * len(self.answers)
        texts = [""] * len(self.answers)
        for at in range(len(self.answers)):
            if (first_choice := self.role_choice(at)) is not None:
                yield self._make_chunk(first_choice)
        async with aclosing(merge_streams(self.answers)) as chunks:
            async for at, chunk in chunks:
                counts[at] += len(chunk.tokens)
                texts[at] += chunk.text
                yield self._make_chunk(self.chunk_choice(at, chunk))
        await on_complete(texts)
        if self.body.with_usage:
            yield {
                "object": self.chunk_object_name,
                **self.common_fields,
                "choices": [],
                "usage": self.usage(counts),
            }

    def _make_chunk(self, choice: dict[str, Any]) -> dict[str, Any]:
        return {"object": self.chunk_object_name, **self.common_fields, "choices": [choice]}

    def usage(self, completion_counts: Sequence[int]) -> dict[str, int]:
        prompt_tokens = len(self.answers[0].request.prompt)
        return {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": sum(completion_counts),
            "total_tokens": prompt_tokens + sum(completion_counts),
        }

    def role_choice(self, at: int) -> dict[str, Any] | None:
        """The first chunk's choice, which has the role; None if the endpoint has none."""
        return None

    def choice(self, at: int, answer: FullAnswer) -> dict[str, Any]:
        return self._make_choice(at, self.format_text(answer.text), answer)

    def chunk_choice(self, at: int, chunk: StreamChunk) -> dict[str, Any]:
        return self._make_choice(at, self.format_delta(chunk.text), chunk)

    def _make_choice(
        self, at: int, text_fields: dict[str, Any], result: FullAnswer | StreamChunk
    ) -> dict[str, Any]:
        return {
            "index": at,
            **text_fields,
            "logprobs": self.format_logprobs(result.tokens, result.logprobs)
            if result.logprobs
            else None,
            "finish_reason": None
            if result.finish_reason is None
            else OPENAI_FINISH_REASONS[result.finish_reason],
        }

    def format_text(self, text: str) -> dict[str, Any]:
        """The text fields of a choice in a complete response."""
        raise AssertionError("each endpoint has its form")

    def format_delta(self, text: str) -> dict[str, Any]:
        """The text fields of a choice in a chunk (the delta)."""
        raise AssertionError("each endpoint has its form")

    def format_logprobs(
        self, tokens: Sequence[int], logprobs: Sequence[TokenLogprob]
    ) -> dict[str, Any]:
        """The `logprobs` field of a choice: tokens with their logprobs and top logprobs."""
        raise AssertionError("each endpoint has its form")

    def _decode_token(self, token: int) -> str:
        text: str = self.served.template.tokenizer.decode([token])
        return text


class _ChatResponseBuilder(_ResponseBuilder):
    """The format of /v1/chat/completions."""

    object_name, chunk_object_name, id_prefix = (
        "chat.completion",
        "chat.completion.chunk",
        "chatcmpl",
    )

    def role_choice(self, at: int) -> dict[str, Any] | None:
        delta = {"role": "assistant", "content": ""}
        return {"index": at, "delta": delta, "logprobs": None, "finish_reason": None}

    def format_text(self, text: str) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": text, "refusal": None}}

    def format_delta(self, text: str) -> dict[str, Any]:
        return {"delta": {"content": text} if text else {}}

    def format_logprobs(
        self, tokens: Sequence[int], logprobs: Sequence[TokenLogprob]
    ) -> dict[str, Any]:
        content = [
            self._token_entry(token, entry.logprob)
            | {"top_logprobs": [self._token_entry(*other) for other in entry.top_logprobs]}
            for token, entry in zip(tokens, logprobs, strict=True)
        ]
        return {"content": content, "refusal": None}

    def _token_entry(self, token: int, logprob: float) -> dict[str, Any]:
        text = self._decode_token(token)
        return {"token": text, "logprob": logprob, "bytes": list(text.encode())}


class _CompletionResponseBuilder(_ResponseBuilder):
    """The format of /v1/completions."""

    object_name, chunk_object_name, id_prefix = "text_completion", "text_completion", "cmpl"

    def format_text(self, text: str) -> dict[str, Any]:
        return {"text": text}

    format_delta = format_text

    def format_logprobs(
        self, tokens: Sequence[int], logprobs: Sequence[TokenLogprob]
    ) -> dict[str, Any]:
        return {
            "tokens": [self._decode_token(token) for token in tokens],
            "token_logprobs": [entry.logprob for entry in logprobs],
            "top_logprobs": [
                {self._decode_token(token): value for token, value in entry.top_logprobs}
                for entry in logprobs
            ],
            "text_offset": [
                len(self.served.template.decode_continued_text(to_token_ids(tokens[:at])))
                for at in range(len(tokens))
            ],
        }


async def _collect_all(answers: Sequence[AnswerStream]) -> list[FullAnswer]:
    return list(await asyncio.gather(*(answer.collect() for answer in answers)))


async def merge_streams(answers: Sequence[AnswerStream]) -> AsyncGenerator[tuple[int, StreamChunk]]:
    """Merges the streams of several answers: (index, chunk) pairs as they come.

    All streams are closed at the end, also after an error or cancellation.
    """
    if len(answers) == 1:  # without asyncio tasks, which cost as much as a token of a small model
        async with aclosing(aiter(answers[0])) as chunks:
            async for chunk in chunks:
                yield 0, chunk
        return
    streams = [aiter(answer) for answer in answers]
    pending = {asyncio.ensure_future(anext(stream)): at for at, stream in enumerate(streams)}
    try:
        while pending:
            done, _ = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in sorted(done, key=lambda task: pending[task]):
                at = pending.pop(task)
                chunk = task.result()
                if chunk.finish_reason is None:
                    pending[asyncio.ensure_future(anext(streams[at]))] = at
                yield at, chunk
    finally:
        for task in pending:
            task.cancel()
        for answer in answers:
            answer.close()
