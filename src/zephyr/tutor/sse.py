"""Server-sent events (SSE): answers are freed as soon as the client disconnects."""

import asyncio
import json
from collections.abc import AsyncGenerator, Coroutine, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Any, TypeVar

from fastapi import Request
from sse_starlette import EventSourceResponse
from sse_starlette.sse import SendTimeoutError
from starlette.types import Receive, Scope, Send

from zephyr.tutor.answer_stream import AnswerStream, GenerationError
from zephyr.tutor.api_errors import ApiError, to_api_error

T = TypeVar("T")

STREAM_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The whole answer, or its pieces.", "content": {"text/event-stream": {}}}
}
"""How a route that may stream is described in the app's OpenAPI document."""

SEND_TIMEOUT_SECONDS = 30.0
"""Timeout, in seconds, of a send to a slow client; then its slot is freed."""


class EventStream(EventSourceResponse):
    """SSE response: sends each value of `events` as JSON, and at last `[DONE]`.

    `events` and the `answers` that they are made of are closed as soon as the client disconnects,
    or takes nothing for `SEND_TIMEOUT_SECONDS` seconds.
    """

    def __init__(
        self, events: AsyncGenerator[Mapping[str, Any]], answers: Sequence[AnswerStream]
    ) -> None:
        super().__init__(_event_lines(events), sep="\n", ping=0, send_timeout=SEND_TIMEOUT_SECONDS)
        self._answers = answers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with suppress(SendTimeoutError):
                await super().__call__(scope, receive, send)
        finally:
            for answer in self._answers:  # of events that were never begun, too
                answer.close()


async def _event_lines(events: AsyncGenerator[Mapping[str, Any]]) -> AsyncGenerator[dict[str, str]]:
    """The data of each event as JSON; an error that ends them is the last event before `[DONE]`."""
    async with aclosing(events):
        try:
            async for event in events:
                yield {"data": json.dumps(event, ensure_ascii=False)}
        except (GenerationError, ApiError) as error:
            yield {"data": json.dumps(to_api_error(error).body, ensure_ascii=False)}
    yield {"data": "[DONE]"}


async def run_until_disconnect(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Awaits `work`, and cancels it if the client disconnects before.

    Raises:
        ApiError: the client has disconnected.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_wait_for_disconnect(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ApiError(400, "the client has gone away", code="gone")
        return working.result()
    finally:
        for task in (working, leaving):
            task.cancel()
        with suppress(asyncio.CancelledError):
            await working


async def _wait_for_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
