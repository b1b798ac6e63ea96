"""Server-sent events (SSE) that stop when the client disconnects."""

import asyncio
import json
from collections.abc import AsyncGenerator, Coroutine, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Any, TypeVar

from fastapi import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from zephyr.tutor.api_errors import ApiError, to_api_error
from zephyr.tutor.scheduler import AnswerStream, GenerationError

T = TypeVar("T")

STREAM_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The whole answer, or its pieces.", "content": {"text/event-stream": {}}}
}
"""How a route that may stream is described in the app's OpenAPI document."""

SEND_TIMEOUT_SECONDS = 30.0
"""Timeout, in seconds, of a send to a slow client; then its slot is freed."""


class EventStream(Response):
    """SSE response: sends each value of `events` as JSON, and at last `[DONE]`.

    `events` and the `answers` that they tell of are closed as soon as the reader has gone away, or
    takes nothing for `SEND_TIMEOUT_SECONDS` seconds.
    """

    media_type = "text/event-stream"

    def __init__(
        self, events: AsyncGenerator[Mapping[str, Any]], answers: Sequence[AnswerStream]
    ) -> None:
        self.status_code = 200
        self.background = None
        self._events, self._answers = events, answers
        self.init_headers({"Cache-Control": "no-store", "X-Accel-Buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sending = asyncio.ensure_future(self._send(send))
        leaving = asyncio.ensure_future(_wait_for_disconnect(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, leaving):
                task.cancel()
            with suppress(asyncio.CancelledError, TimeoutError):
                await sending
            for answer in self._answers:  # of events that were never begun, too
                answer.close()

    async def _send(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": self.status_code}
        await send({**start, "headers": self.raw_headers})
        async with aclosing(self._events) as events:
            try:
                async for event in events:
                    await _patiently(send, _line(event))
            except (GenerationError, ApiError) as error:
                await _patiently(send, _line(to_api_error(error).body))
        await _patiently(send, b"data: [DONE]\n\n")
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _line(event: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(event, ensure_ascii=False).encode() + b"\n\n"


async def _patiently(send: Send, body: bytes) -> None:
    part: Message = {"type": "http.response.body", "body": body, "more_body": True}
    async with asyncio.timeout(
        SEND_TIMEOUT_SECONDS
    ):  # wait_for of Python 3.11 loses a cancellation
        await send(part)


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def run_until_disconnect(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Awaits `work`, and cancels it if the client disconnects before.

    Raises:
        ApiError: the client has disconnected.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_wait_for_disconnect(request.receive))
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
