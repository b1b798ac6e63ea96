"""What the routes of a class share: its models, its settings, its log and its quiz."""

import logging
import secrets
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import anyio.to_thread

from zephyr.errors import ZephyrError
from zephyr.model.decode import Sampling
from zephyr.records import Message
from zephyr.tutor.events import AlreadyThere, Events, Kind, UnknownSession
from zephyr.tutor.openai_routes import FINISH, interleaved, refuse_long
from zephyr.tutor.quizzes import Quizzes
from zephyr.tutor.refusal import Refusal
from zephyr.tutor.scheduler import Answer, Request
from zephyr.tutor.serving import Served, Serving
from zephyr.tutor.settings import Tutor, Way

T = TypeVar("T")


@dataclass(frozen=True)
class Classroom:
    """All that a class has; whatever is written down is so before anybody is told."""

    serving: Serving
    tutor: Tutor
    events: Events
    quizzes: Quizzes

    @property
    def ways(self) -> list[Way]:
        """The ways that the page offers: those of the settings that are possible."""
        possible = {"compare": len(self.serving.models) > 1, "quiz": len(self.quizzes) > 0}
        return [way for way in self.tutor.ways if possible.get(way, True)]

    def check_way(self, way: Way) -> None:
        """
        Raises:
            Refusal: the course does not offer this.
        """
        if way not in self.ways:
            text = f"this course offers no {way!r}, but: {', '.join(self.ways)}"
            raise Refusal(403, text, code="not_a_way")

    async def check_session(self, session: str) -> None:
        """
        Raises:
            Refusal: the session was not made here, or has been removed.
        """
        if not await self.kept(partial(self.events.knows, session)):
            raise _unknown_session()

    async def kept(self, work: Callable[[], T]) -> T:
        """What `work` gives, which reads or writes the log, beside the event loop.

        Raises:
            Refusal: the log can't be used, which its keeper is told, not the student.
        """
        try:
            return await anyio.to_thread.run_sync(work)
        except UnknownSession:
            raise _unknown_session() from None
        except ZephyrError as error:
            logging.getLogger(__name__).error("%s", error)
            text = "this can't be stored at the moment; tell your teacher"
            raise Refusal(503, text, code="not_stored") from error

    async def note(
        self,
        kind: Kind,
        body: dict[str, Any],
        *,
        session: str,
        model: str | None = None,
        key: str | None = None,
        twice: Refusal | None = None,
    ) -> None:
        """Writes an event down; `twice` is what is told where there is one and may be no other.

        Raises:
            Refusal: it can't be stored, or stands there already.
        """
        work = partial(self.events.add, kind, body, session=session, model=model, key=key)
        try:
            await self.kept(work)
        except AlreadyThere:
            assert twice is not None, "only some events may be there once"
            raise twice from None

    async def heard(
        self, model: str, user: str | None, asked: Sequence[Message], answers: Sequence[str]
    ) -> None:
        """Counts a question that was freely asked; where that fails, its answer is given anyway.

        `user` may be a session: then the event is that session's, and is removed with it.
        """
        noted = {
            "way": "ask",
            "turns": len(asked),
            "characters": sum(len(message.content) for message in asked),
            **self.logged(
                messages=[[message.role, message.content] for message in asked],
                answers=list(answers),
            ),
        }

        def add() -> None:
            session = user if user is not None and self.events.knows(user) else None
            self.events.add("question", noted, session=session, model=model)

        with suppress(Refusal):  # `kept` has told the keeper of the log
            await self.kept(add)

    def request(self, served: Served, messages: Sequence[Message], **how: Any) -> Request:
        """What is asked of the scheduler, as the settings say.

        Raises:
            ZephyrError: the conversation is too long, or the model's template refuses it.
        """
        sampling = Sampling(self.tutor.temperature)
        seed = secrets.randbelow(2**31)
        limit = self.tutor.limits.tokens
        return served.request(messages, limit=limit, sampling=sampling, seed=seed, **how)

    def under_system(self, messages: Sequence[Message]) -> list[Message]:
        """A conversation of our own making under the course's system message, if it has one."""
        system = self.tutor.system
        return [Message("system", system), *messages] if system is not None else list(messages)

    def check_length(self, text: str, param: str) -> None:
        """
        Raises:
            Refusal: the text is longer than a message may be.
        """
        refuse_long(self.tutor, text, param)

    def logged(self, **texts: Any) -> dict[str, Any]:
        """Texts as the log may hold them: none, unless the teacher keeps messages."""
        return texts if self.tutor.logs.messages else {}


def _unknown_session() -> Refusal:
    text = "this session is not known; ask for a new one"
    return Refusal(400, text, code="unknown_session", param="session")


class Spoken:
    """One answer that is streamed to the page: its text so far, and how it ended."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.text = ""
        self.ended = ""

    async def events(self) -> AsyncGenerator[dict[str, Any]]:
        """{"text"} as it comes; the end is left to the caller."""
        async with aclosing(interleaved([self._answer])) as pieces:
            async for _, piece in pieces:
                if piece.text:
                    self.text += piece.text
                    yield {"text": piece.text}
                if piece.ended is not None:
                    self.ended = FINISH[piece.ended]
