"""Students of a class under load: who asks, who compares and votes, who leaves, who reads slowly.

What each does next is drawn by a seed of its own. They note what they were answered, and what the
server has acknowledged: that must outlast whatever happens to it.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from bench.client import Reply, request

WORDS = ("force", "mass", "energy", "speed", "charge", "power", "work", "heat")
CHAT = "/v1/chat/completions"
BROKEN = (OSError, EOFError, ValueError, TimeoutError)
"""What a client meets whose server breaks off, or says what is none of HTTP or JSON."""


@dataclass
class Class:
    """The server, when students go home, and what they have seen."""

    port: int
    models: list[str]
    ways: list[str]
    until: float = 0.0
    over: bool = False
    """Whether the server is being killed: what breaks then is no error."""
    statuses: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    votes: dict[str, str] = field(default_factory=dict)
    """What was chosen in each comparison whose vote the server has acknowledged."""
    first: list[float] = field(default_factory=list)

    @property
    def open(self) -> bool:
        return time.monotonic() < self.until and not self.over


class Student:
    """One user: a session, and one request after the other."""

    def __init__(self, room: Class, number: int) -> None:
        self.room = room
        self.draw = random.Random(number)
        self.session = ""

    async def attend(self) -> None:
        """Does one thing after the other until the class is over."""
        ways: list[tuple[Callable[[], Coroutine[Any, Any, None]], int]] = [
            (self.ask, 4),
            (self.ask_at_once, 2),
            (self.leave, 3),
            (self.read_slowly, 1),
        ]
        if "compare" in self.room.ways:
            ways += [(self.compare, 4)]
        if "quiz" in self.room.ways:
            ways += [(self.practise, 2)]
        if "hint" in self.room.ways:
            ways += [(self.climb, 2)]
        does, weights = zip(*ways, strict=True)
        while self.room.open:
            (do,) = self.draw.choices(does, weights)
            try:
                if self.room.ways and not self.session:
                    await self.enter()
                await do()
            except BROKEN as error:
                if not self.room.over:
                    self.room.errors[f"{do.__name__}: {error!r}"] += 1
                    await asyncio.sleep(0.1)

    # -- what students do -----------------------------------------------------------------------

    async def ask(self) -> None:
        """A question whose answer is streamed."""
        asked = time.perf_counter()
        async with self._request("POST", CHAT, self._chat(stream=True)) as reply:
            if await self._taken("ask", reply):
                await self._listen("ask", reply, asked)

    async def ask_at_once(self) -> None:
        """A question whose answer comes as a whole."""
        async with self._request("POST", CHAT, self._chat(stream=False)) as reply:
            if await self._taken("ask at once", reply):
                found = await reply.json()
                self.room.events["tokens"] += found["usage"]["completion_tokens"]

    async def leave(self) -> None:
        """A question whose answer is not waited for."""
        async with self._request("POST", CHAT, self._chat(stream=self._likely(0.7))) as reply:
            if await self._taken("leave", reply):
                heard = self.draw.randrange(4)
                async for _ in reply.events():
                    heard -= 1
                    if heard < 0:
                        break
                self.room.events["left in mid-stream"] += not reply.done

    async def read_slowly(self) -> None:
        """A question whose answer is read in small pieces, with pauses."""
        body = self._chat(stream=True, n=4, logprobs=True, top_logprobs=20)
        async with self._request("POST", CHAT, body, narrow=True) as reply:
            if await self._taken("read slowly", reply):
                async for event in reply.events():
                    self._check("read slowly", event)
                    if self._likely(0.1):
                        await asyncio.sleep(self.draw.random() / 2)
                    if not self.room.open:
                        return
                self._ended("read slowly", reply)

    async def compare(self) -> None:
        """Two answers, then a vote, sometimes another, which must be refused."""
        messages = [{"role": "user", "content": self._question()}]
        body = {"session": self.session, "messages": messages}
        comparison = None
        asked = time.perf_counter()
        async with self._request("POST", "/tutor/compare", body) as reply:
            if await self._taken("compare", reply):
                last = await self._listen("compare", reply, asked)
                comparison = last.get("comparison")
        if comparison is None or self._likely(0.1):
            return
        side = self.draw.choice(("A", "B", "AB"))
        vote = {"session": self.session, "comparison": comparison, "overall": side}
        async with self._request("POST", "/tutor/vote", vote) as reply:
            if not await self._taken("vote", reply):
                return
            if (await reply.json())["stored"] is True:
                self.room.votes[comparison] = side
        if self._likely(0.2):
            again = {**vote, "overall": "A" if side == "B" else "B"}
            async with self._request("POST", "/tutor/vote", again) as reply:
                await self._taken("vote again", reply, 409)

    async def practise(self) -> None:
        """A question of the quiz, an answer, and sometimes why."""
        path = f"/tutor/quiz?session={self.session}"
        async with self._request("GET", path) as reply:
            if not await self._taken("quiz", reply, 200, 404):
                return
            if reply.status == 404:
                self.session = ""  # another student takes the place of who has answered all
                return
            quiz = await reply.json()
        body = {"session": self.session, "quiz": quiz["quiz"], "model": self._model()}
        chosen = {"chosen": self.draw.randrange(len(quiz["options"]))}
        async with self._request("POST", "/tutor/quiz", body | chosen) as reply:
            if not await self._taken("answer", reply):
                return
        if self._likely(0.3):
            asked = time.perf_counter()
            async with self._request("POST", "/tutor/explain", body) as reply:
                if not await self._taken("explain", reply, 200, 400) or reply.status == 400:
                    return  # a small model's context may be too short for it
                await self._listen("explain", reply, asked)

    async def climb(self) -> None:
        """A ladder of hints, of which not all are asked for."""
        body = {"session": self.session, "model": self._model(), "question": self._question()}
        path = "/tutor/ladder"
        while self.room.open:
            async with self._request("POST", path, body) as reply:
                if not await self._taken("ladder", reply, 200, 409) or reply.status == 409:
                    return
                ladder = ""
                async for event in reply.events():
                    self._check("ladder", event)
                    ladder = event.get("ladder", ladder)
                self._ended("ladder", reply)
            if not ladder or self._likely(0.4):
                return
            path, body = f"/tutor/ladder/{ladder}", {"session": self.session}

    async def enter(self) -> None:
        """A session of one's own."""
        async with self._request("POST", "/tutor/session", {}) as reply:
            if await self._taken("session", reply):
                self.session = (await reply.json())["session"]

    # -- what is noted --------------------------------------------------------------------------

    async def _taken(self, what: str, reply: Reply, *expected: int) -> bool:
        """Notes a status; whether the answer is one of those that are expected (200)."""
        self.room.statuses[f"{what}: {reply.status}"] += 1
        if reply.status in (expected or (200,)):
            return True
        if reply.status == 429:
            await asyncio.sleep(min(float(reply.headers["retry-after"]), self._left()))
        else:
            said = (await reply.content())[:300].decode(errors="replace")
            self.room.errors[f"{what}: {reply.status} {said}"] += 1
        return False

    async def _listen(self, what: str, reply: Reply, asked: float) -> dict[str, Any]:
        """Hears a stream to its end, and gives the last event."""
        last: dict[str, Any] = {}
        begun = False
        async for event in reply.events():
            if not begun and _text(event):
                self.room.first.append(time.perf_counter() - asked)
                begun = True
            self._check(what, event)
            last = event
        self._ended(what, reply)
        return last

    def _check(self, what: str, event: dict[str, Any]) -> None:
        if "error" in event and not self.room.over:
            self.room.errors[f"{what}, in mid-stream: {event['error']}"] += 1
        self.room.events["events"] += 1
        if usage := event.get("usage"):
            self.room.events["tokens"] += usage["completion_tokens"]

    def _ended(self, what: str, reply: Reply) -> None:
        self.room.events["streams to their end"] += reply.done
        if not reply.done and not self.room.over:
            self.room.errors[f"{what}: a stream ended without [DONE]"] += 1

    # -- what is said ---------------------------------------------------------------------------

    def _request(self, method: str, path: str, body: Any = None, *, narrow: bool = False) -> Any:
        return request(self.room.port, method, path, body, narrow=narrow)

    def _chat(self, **how: Any) -> dict[str, Any]:
        messages = [{"role": "user", "content": self._question()}]
        body = {"model": self._model(), "messages": messages, "temperature": 1, **how}
        if how.get("stream"):
            body["stream_options"] = {"include_usage": True}
        return body

    def _question(self) -> str:
        return f"What is {self.draw.choice(WORDS)}? ({self.draw.randrange(100)})"

    def _model(self) -> str:
        return self.draw.choice(self.room.models)

    def _likely(self, share: float) -> bool:
        return self.draw.random() < share

    def _left(self) -> float:
        return max(0.0, self.room.until - time.monotonic())


def _text(event: dict[str, Any]) -> str:
    """The text in an event, whichever route it comes from."""
    if choices := event.get("choices"):
        return "".join(choice["delta"].get("content") or "" for choice in choices)
    return str(event.get("text", ""))


async def attend(room: Class, users: int, seconds: float, first: int = 0) -> None:
    """So many students for so many seconds; requests that are under way are ended."""
    room.until = time.monotonic() + seconds
    await asyncio.gather(*(Student(room, first + at).attend() for at in range(users)))
