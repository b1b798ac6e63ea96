"""Simulated students of a class under load: they ask, compare and vote, leave, read slowly.

What each does next is drawn by a seed of its own. Recorded are the answers, and the votes that the
server has acknowledged: these must outlast whatever happens to it.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2

from bench.serving.client import CHAT, EventStream, event_text, open_client

WORDS = ("force", "mass", "energy", "speed", "charge", "power", "work", "heat")
BROKEN = (httpx2.HTTPError, OSError, ValueError)
"""Errors of a client whose server breaks off, or sends what is none of HTTP or JSON."""
SLOW_BUFFER = 4096
"""Bytes that a slow reader's side of a connection takes before the server has to wait."""


@dataclass
class Classroom:
    """The server that a class uses, when the lesson ends, and what the students have recorded."""

    port: int
    models: list[str]
    activities: list[str]
    end: float = 0.0
    killed: bool = False
    """Whether the server is being killed: what breaks then is no error."""
    statuses: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    votes: dict[str, str] = field(default_factory=dict)
    """What was chosen in each comparison whose vote the server has acknowledged."""
    client: httpx2.AsyncClient = field(init=False)
    slow_client: httpx2.AsyncClient = field(init=False)
    first: list[float] = field(default_factory=list)
    """Seconds to the first text of each streamed answer."""

    @property
    def is_open(self) -> bool:
        return time.monotonic() < self.end and not self.killed

    async def attend(self, users: int, seconds: float, first: int = 0) -> None:
        """So many students for so many seconds; requests that are under way are ended."""
        self.end = time.monotonic() + seconds
        async with (
            open_client(self.port) as self.client,
            open_client(self.port, SLOW_BUFFER) as self.slow_client,
        ):
            students = (Student(self, first + at) for at in range(users))
            await asyncio.gather(*(student.attend() for student in students))


class Student:
    """One user: a session, and one request after the other."""

    def __init__(self, classroom: Classroom, seed: int) -> None:
        self.classroom = classroom
        self.random = random.Random(seed)
        self.session = ""

    async def attend(self) -> None:
        """Does one thing after the other until the lesson is over."""
        weights: dict[Callable[[], Coroutine[Any, Any, None]], int] = {
            self.ask: 4,
            self.ask_at_once: 2,
            self.leave: 3,
            self.read_slowly: 1,
        }
        offered = {"compare": (self.compare, 4), "quiz": (self.practise, 2), "hint": (self.hint, 2)}
        weights |= dict(offered[name] for name in self.classroom.activities if name in offered)
        while self.classroom.is_open:
            (do,) = self.random.choices(list(weights), list(weights.values()))
            try:
                if self.classroom.activities and not self.session:
                    await self.enter()
                await do()
            except BROKEN as error:
                if not self.classroom.killed:
                    self.classroom.errors[f"{do.__name__}: {error!r}"] += 1
                    await asyncio.sleep(0.1)

    async def enter(self) -> None:
        """A session of one's own."""
        if reply := await self._fetch("session", "/tutor/session", {}):
            self.session = reply.json()["session"]

    async def ask(self) -> None:
        """A question whose answer is streamed."""
        await self._stream("ask", CHAT, self._chat(stream=True))

    async def ask_at_once(self) -> None:
        """A question whose answer comes as a whole."""
        if reply := await self._fetch("ask at once", CHAT, self._chat(stream=False)):
            self.classroom.events["tokens"] += reply.json()["usage"]["completion_tokens"]

    async def leave(self) -> None:
        """A question whose answer is not waited for."""
        streamed = self._likely(0.7)
        async with self._request("leave", CHAT, self._chat(stream=streamed)) as reply:
            if reply and streamed:
                left, events = self.random.randrange(4), EventStream(reply)
                async for _ in events:
                    left -= 1
                    if left < 0:
                        break
                self.classroom.events["left in mid-stream"] += not events.is_complete

    async def read_slowly(self) -> None:
        """A question whose answer is read in small pieces, with pauses."""
        body = self._chat(stream=True, n=4, logprobs=True, top_logprobs=20)
        await self._stream("read slowly", CHAT, body, slow=True)

    async def compare(self) -> None:
        """Two answers, then a vote, sometimes another, which must be refused."""
        messages = [{"role": "user", "content": self._question()}]
        body = {"session": self.session, "messages": messages}
        found = await self._stream("compare", "/tutor/compare", body)
        comparison = found.get("comparison")
        if comparison is None or found.get("identical") or self._likely(0.1):
            return  # identical answers take no vote
        side = self.random.choice(("A", "B", "AB"))
        vote = {"session": self.session, "comparison": comparison, "overall": side}
        reply = await self._fetch("vote", "/tutor/vote", vote)
        if reply and reply.json()["stored"] is True:
            self.classroom.votes[comparison] = side
        if reply and self._likely(0.2):
            other = {"overall": "A" if side == "B" else "B"}
            await self._fetch("vote again", "/tutor/vote", vote | other, 409)

    async def practise(self) -> None:
        """A question of the quiz, an answer, and sometimes why."""
        reply = await self._fetch("quiz", f"/tutor/quiz?session={self.session}", None, 200, 404)
        if reply and reply.status_code == 404:
            self.session = ""  # another student takes the place of who has answered all
        if not reply or reply.status_code == 404:
            return
        quiz = reply.json()
        body = {"session": self.session, "quiz": quiz["quiz"], "model": self._model()}
        answer = body | {"chosen": self.random.randrange(len(quiz["options"]))}
        if await self._fetch("answer", "/tutor/quiz", answer) and self._likely(0.3):
            # 400: a small model's context may be too short for it
            await self._stream("explain", "/tutor/explain", body, 200, 400)

    async def hint(self) -> None:
        """A ladder of hints, of which not all are asked for."""
        body = {"session": self.session, "model": self._model(), "question": self._question()}
        path = "/tutor/ladder"
        while self.classroom.is_open:
            ladder = (await self._stream("ladder", path, body, 200, 409)).get("ladder")
            if not ladder or self._likely(0.4):
                return
            path, body = f"/tutor/ladder/{ladder}", {"session": self.session}

    @asynccontextmanager
    async def _request(
        self, what: str, path: str, body: Any, *accepted: int, slow: bool = False
    ) -> AsyncIterator[httpx2.Response | None]:
        """Records the status of a reply; None where it is none of those accepted (200)."""
        client = self.classroom.slow_client if slow else self.classroom.client
        method = "GET" if body is None else "POST"
        async with client.stream(method, path, json=body) as reply:
            status = reply.status_code
            self.classroom.statuses[f"{what}: {status}"] += 1
            if status in (accepted or (200,)):
                yield reply
                return
            if status == 429:
                left = max(0.0, self.classroom.end - time.monotonic())
                await asyncio.sleep(min(float(reply.headers["retry-after"]), left))
            else:
                text = (await reply.aread())[:300].decode(errors="replace")
                self.classroom.errors[f"{what}: {status} {text}"] += 1
            yield None

    async def _fetch(
        self, what: str, path: str, body: Any, *accepted: int
    ) -> httpx2.Response | None:
        """An accepted reply, with its whole body."""
        async with self._request(what, path, body, *accepted) as reply:
            if reply:
                await reply.aread()
        return reply

    async def _stream(
        self, what: str, path: str, body: Any, *accepted: int, slow: bool = False
    ) -> dict[str, Any]:
        """Reads a stream to its end; all keys of its events, with their last values."""
        start, begun = time.perf_counter(), slow
        found: dict[str, Any] = {}
        async with self._request(what, path, body, *accepted, slow=slow) as reply:
            if reply is None or reply.status_code != 200:
                return found
            events = EventStream(reply)
            async for event in events:
                if not begun and event_text(event):
                    self.classroom.first.append(time.perf_counter() - start)
                    begun = True
                self._record(what, event)
                found |= event
                if slow and self._likely(0.1):
                    await asyncio.sleep(self.random.random() / 2)
                if slow and not self.classroom.is_open:
                    return found
            self.classroom.events["streams to their end"] += events.is_complete
            if not events.is_complete and not self.classroom.killed:
                self.classroom.errors[f"{what}: a stream ended without [DONE]"] += 1
        return found

    def _record(self, what: str, event: dict[str, Any]) -> None:
        if "error" in event and not self.classroom.killed:
            self.classroom.errors[f"{what}, in mid-stream: {event['error']}"] += 1
        self.classroom.events["events"] += 1
        if usage := event.get("usage"):
            self.classroom.events["tokens"] += usage["completion_tokens"]

    def _chat(self, **options: Any) -> dict[str, Any]:
        messages = [{"role": "user", "content": self._question()}]
        usage = {"stream_options": {"include_usage": True}} if options["stream"] else {}
        common = {"model": self._model(), "messages": messages, "temperature": 1}
        return {**common, **usage, **options}

    def _question(self) -> str:
        return f"What is {self.random.choice(WORDS)}? ({self.random.randrange(100)})"

    def _model(self) -> str:
        return self.random.choice(self.classroom.models)

    def _likely(self, share: float) -> bool:
        return self.random.random() < share
