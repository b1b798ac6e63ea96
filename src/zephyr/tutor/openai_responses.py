"""Responses of the OpenAI-compatible API: complete as JSON, or a stream of chunks."""

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any

from fastapi import Request
from starlette.responses import JSONResponse, Response

from zephyr.tutor.answer_stream import AnswerStream, FullAnswer, StreamChunk, merge_streams
from zephyr.tutor.openai_schema import BaseCompletionRequest
from zephyr.tutor.serving import ServedModel
from zephyr.tutor.sse import EventStream, run_until_disconnect
from zephyr.tutor.token_logprobs import TokenAligner, TokenEntry, token_text

OPENAI_FINISH_REASONS = {"end token": "stop", "stop string": "stop", "length": "length"}

OnComplete = Callable[[Sequence[str]], Awaitable[None]]
"""Callback once all answers are complete, with their texts."""


class ResponseBuilder:
    """Builds the response to a request in an endpoint's format: JSON, or a stream of chunks."""

    object_name = ""
    chunk_object_name = ""
    id_prefix = ""

    def __init__(
        self, served: ServedModel, body: BaseCompletionRequest, answers: Sequence[AnswerStream]
    ) -> None:
        self.body, self.answers = body, answers
        self.common_fields = {
            "id": f"{self.id_prefix}-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": served.name,
        }
        self._aligners = [
            TokenAligner(served.runner.token_bytes, served.template.tokenizer)
            if answer.request.top_logprobs is not None
            else None
            for answer in answers
        ]

    async def respond(self, request: Request, on_complete: OnComplete) -> Response:
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

    async def stream_chunks(self, on_complete: OnComplete) -> AsyncGenerator[dict[str, Any]]:
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
        if self.body.stream_options.include_usage:
            yield {
                "object": self.chunk_object_name,
                **self.common_fields,
                "choices": [],
                "usage": self.usage(counts),
            }

    def _make_chunk(self, choice: dict[str, Any]) -> dict[str, Any]:
        return {"object": self.chunk_object_name, **self.common_fields, "choices": [choice]}

    def usage(self, completion_counts: Sequence[int]) -> dict[str, int]:
        """Tokens of the prompts, each counted once, and of all completions."""
        prompts = [answer.request.prompt for answer in self.answers[:: self.body.n]]
        prompt_tokens = sum(map(len, prompts))
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
        aligner = self._aligners[at]
        entries = aligner.align(result) if aligner is not None else []
        return {
            "index": at,
            **text_fields,
            "logprobs": self.format_logprobs(entries) if entries else None,
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

    def format_logprobs(self, entries: Sequence[TokenEntry]) -> dict[str, Any]:
        """The `logprobs` field of a choice: tokens with their logprobs and top logprobs."""
        raise AssertionError("each endpoint has its form")


class ChatResponseBuilder(ResponseBuilder):
    """The format of /v1/chat/completions."""

    object_name = "chat.completion"
    chunk_object_name = "chat.completion.chunk"
    id_prefix = "chatcmpl"

    def role_choice(self, at: int) -> dict[str, Any] | None:
        delta = {"role": "assistant", "content": ""}
        return {"index": at, "delta": delta, "logprobs": None, "finish_reason": None}

    def format_text(self, text: str) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": text, "refusal": None}}

    def format_delta(self, text: str) -> dict[str, Any]:
        return {"delta": {"content": text} if text else {}}

    def format_logprobs(self, entries: Sequence[TokenEntry]) -> dict[str, Any]:
        content = [
            _token_fields(entry.data, entry.logprob)
            | {"top_logprobs": [_token_fields(*other) for other in entry.top_logprobs]}
            for entry in entries
        ]
        return {"content": content, "refusal": None}


class CompletionResponseBuilder(ResponseBuilder):
    """The format of /v1/completions."""

    object_name = chunk_object_name = "text_completion"
    id_prefix = "cmpl"

    def format_text(self, text: str) -> dict[str, Any]:
        return {"text": text}

    format_delta = format_text

    def format_logprobs(self, entries: Sequence[TokenEntry]) -> dict[str, Any]:
        return {
            "tokens": [entry.text for entry in entries],
            "token_logprobs": [entry.logprob for entry in entries],
            "top_logprobs": [
                {token_text(data): value for data, value in entry.top_logprobs} for entry in entries
            ],
            "text_offset": [entry.start for entry in entries],
        }


def _token_fields(data: bytes, logprob: float) -> dict[str, Any]:
    return {"token": token_text(data), "logprob": logprob, "bytes": list(data)}


async def _collect_all(answers: Sequence[AnswerStream]) -> list[FullAnswer]:
    return list(await asyncio.gather(*(answer.collect() for answer in answers)))
