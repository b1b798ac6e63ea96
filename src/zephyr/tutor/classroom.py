"""Shared state of the class routes: served models, settings, event log and quiz."""

import logging
import secrets
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import anyio.to_thread

from zephyr.errors import ZephyrError
from zephyr.model.decoding import SamplingParams
from zephyr.records import Message
from zephyr.tutor.answer_stream import AnswerStream, GenerationRequest, merge_streams
from zephyr.tutor.api_errors import ApiError
from zephyr.tutor.events import DuplicateEventError, EventKind, EventLog, UnknownSessionError
from zephyr.tutor.openai_responses import OPENAI_FINISH_REASONS
from zephyr.tutor.openai_routes import check_message_length
from zephyr.tutor.quizzes import Quizzes
from zephyr.tutor.serving import ServedModel, ServingEngine
from zephyr.tutor.settings import TutorSettings, Way

T = TypeVar("T")


@dataclass(frozen=True)
class Classroom:
    """Dependencies of the class routes; events are stored before the response is sent."""

    serving: ServingEngine
    settings: TutorSettings
    events: EventLog
    quizzes: Quizzes

    @property
    def ways(self) -> list[Way]:
        """The modes that the page offers: those of the settings that are possible."""
        possible = {"compare": len(self.serving.models) > 1, "quiz": len(self.quizzes) > 0}
        return [way for way in self.settings.ways if possible.get(way, True)]

    def check_way(self, way: Way) -> None:
        """Checks that the course offers a mode of the page (`ways`).

        Raises:
            ApiError: it does not (403).
        """
        if way not in self.ways:
            text = f"this course offers no {way!r}, but: {', '.join(self.ways)}"
            raise ApiError(403, text, code="not_a_way")

    async def check_session(self, session: str) -> None:
        """Checks that a session exists.

        Raises:
            ApiError: it was never created, or has been deleted (400).
        """
        if not await self.run_in_thread(partial(self.events.has_session, session)):
            raise _unknown_session()

    async def run_in_thread(self, function: Callable[[], T]) -> T:
        """Runs a function that uses the event log (blocking I/O) in a worker thread.

        Raises:
            ApiError: the log can't be used (503); the reason is logged, not sent to the student.
        """
        try:
            return await anyio.to_thread.run_sync(function)
        except UnknownSessionError:
            raise _unknown_session() from None
        except ZephyrError as error:
            logging.getLogger(__name__).error("%s", error)
            text = "this can't be stored at the moment; tell your teacher"
            raise ApiError(503, text, code="not_stored") from error

    async def store_event(
        self,
        kind: EventKind,
        body: dict[str, Any],
        *,
        session: str,
        model: str | None = None,
        key: str | None = None,
        conflict: ApiError | None = None,
    ) -> None:
        """Stores an event; raises `conflict` if it must be unique and is stored already.

        Raises:
            ApiError: it can't be stored, or is stored already.
        """
        add_event = partial(self.events.add, kind, body, session=session, model=model, key=key)
        try:
            await self.run_in_thread(add_event)
        except DuplicateEventError:
            assert conflict is not None, "only some events may be there once"
            raise conflict from None

    async def on_answer(
        self, model: str, user: str | None, messages: Sequence[Message], answers: Sequence[str]
    ) -> None:
        """Callback after a chat request: stores an event; a failure does not lose the answer.

        `user` may be a session: then the event is that session's, and is removed with it.
        """
        event_body = {
            "way": "ask",
            "turns": len(messages),
            "characters": sum(len(message.content) for message in messages),
            **self.loggable_texts(
                messages=[[message.role, message.content] for message in messages],
                answers=list(answers),
            ),
        }

        def add() -> None:
            session = user if user is not None and self.events.has_session(user) else None
            self.events.add("question", event_body, session=session, model=model)

        with suppress(ApiError):  # `run_in_thread` has logged it
            await self.run_in_thread(add)

    async def make_request(
        self, served: ServedModel, messages: Sequence[Message], **options: Any
    ) -> GenerationRequest:
        """Makes a scheduler request for a conversation with the settings' sampling params.

        Raises:
            ZephyrError: the conversation is too long, or the model's template refuses it.
        """
        sampling = SamplingParams(self.settings.temperature)
        seed = secrets.randbelow(2**31)
        max_new_tokens = self.settings.limits.tokens
        return await served.make_request(
            messages, max_new_tokens=max_new_tokens, sampling=sampling, seed=seed, **options
        )

    def add_system_message(self, messages: Sequence[Message]) -> list[Message]:
        """Prepends the course's system message, if any, to messages of our own."""
        system = self.settings.system
        return [Message("system", system), *messages] if system is not None else list(messages)

    def check_length(self, text: str, param: str) -> None:
        """Checks a text against the maximum message length.

        Raises:
            ApiError: the text is too long (400).
        """
        check_message_length(self.settings, text, param)

    def loggable_texts(self, **texts: Any) -> dict[str, Any]:
        """The texts to store with an event: none unless `logs.messages` is set."""
        return texts if self.settings.logs.messages else {}


def _unknown_session() -> ApiError:
    text = "this session is not known; ask for a new one"
    return ApiError(400, text, code="unknown_session", param="session")


class AnswerCollector:
    """Streams one answer to the page as events (SSE), and collects its text and finish reason."""

    def __init__(self, answer: AnswerStream) -> None:
        self._answer = answer
        self.text = ""
        self.finish_reason = ""

    async def events(self) -> AsyncGenerator[dict[str, Any]]:
        """{"text"} events as chunks come; the final event is left to the caller."""
        async with aclosing(merge_streams([self._answer])) as chunks:
            async for _, chunk in chunks:
                if chunk.text:
                    self.text += chunk.text
                    yield {"text": chunk.text}
                if chunk.finish_reason is not None:
                    self.finish_reason = OPENAI_FINISH_REASONS[chunk.finish_reason]
