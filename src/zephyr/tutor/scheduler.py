"""Requests that are answered together: each joins the running batch at the next token.

One thread computes, for all networks in turn. A prompt is read in parts between the tokens of those
that are being answered, so that a long one does not keep them waiting. The thread never waits for a
reader: what nobody reads is kept, no longer than an answer may be, and thrown away with it.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import torch

from zephyr.model.decode import GREEDY, Noted, Reading, Row, Running, Sampling
from zephyr.model.fork import Ids, ids
from zephyr.model.generate import Ended, how_ended
from zephyr.model.half import bytes_of
from zephyr.model.mixed import Mixed
from zephyr.model.template import Template
from zephyr.model.text import GrowingText, first_of

T = TypeVar("T")

SMALL = 1 << 26
"""Bytes of weights below which one thread is quicker than several, which would be in the way."""

PART = 512
"""Tokens of prompts that are read at once, before those that are being answered go on."""


class Busy(Exception):
    """As many requests wait as may."""


class Broken(Exception):
    """An answer ended by a defect of ours."""


@dataclass(frozen=True)
class Request:
    """A prompt for a model, and how it is to be answered, in at most `limit` tokens.

    `until` are strings that end an answer; with `alternatives`, tokens are noted with so many of
    the likeliest.
    """

    model: str
    prompt: Ids
    limit: int
    sampling: Sampling = GREEDY
    seed: int = 0
    until: tuple[str, ...] = ()
    alternatives: int | None = None
    goes_on: bool = False
    """Whether the prompt is a text that goes on: then a space before the first word counts."""


class Piece(NamedTuple):
    """Text that has come, and the tokens since the last piece; in the last, how it all ended.

    `tokens` leave out an end token. They may be ahead of the text, which never ends within a
    character, nor within what may become a stop string.
    """

    text: str
    tokens: list[int]
    noted: list[Noted]
    ended: Ended | None


class Answer:
    """The pieces of an answer as they come; closing it gives its place free at the next token."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.closed = False
        self._loop = asyncio.get_running_loop()
        self._pieces: asyncio.Queue[Piece | Broken] = asyncio.Queue()

    async def __aiter__(self) -> AsyncGenerator[Piece]:
        try:
            while True:
                piece = await self._pieces.get()
                if isinstance(piece, Broken):
                    raise piece
                yield piece
                if piece.ended is not None:
                    return
        finally:
            self.close()

    async def whole(self) -> "Whole":
        """All of it, once it has ended."""
        pieces = [piece async for piece in self]
        return Whole(
            "".join(piece.text for piece in pieces),
            [token for piece in pieces for token in piece.tokens],
            [noted for piece in pieces for noted in piece.noted],
            pieces[-1].ended or "length",
        )

    def close(self) -> None:
        self.closed = True

    def _put(self, piece: Piece | Broken) -> None:
        self._pieces.put_nowait(piece)


def _deliver(found: Sequence[tuple[Answer, Piece | Broken]]) -> None:
    """Hands pieces to the event loops of their answers, each woken once."""
    loops: dict[asyncio.AbstractEventLoop, list[tuple[Answer, Piece | Broken]]] = {}
    for answer, piece in found:
        loops.setdefault(answer._loop, []).append((answer, piece))
    for loop, pieces in loops.items():
        if not loop.is_closed():
            loop.call_soon_threadsafe(_put_all, pieces)


def _put_all(found: Sequence[tuple[Answer, Piece | Broken]]) -> None:
    for answer, piece in found:
        answer._put(piece)


class Whole(NamedTuple):
    """A whole answer."""

    text: str
    tokens: list[int]
    noted: list[Noted]
    ended: Ended


@dataclass(eq=False, kw_only=True)
class Seat(Row):
    """A row of the batch: an answer that is being written, and the place of its model."""

    member: int
    answer: Answer
    text: GrowingText
    told: int = 0
    """Tokens that have been told."""


class _Running(Running[Seat]):
    """A batch in which each row is computed with the adapters of its model."""

    def __init__(self, causal: Any, mixed: Mixed | None) -> None:
        super().__init__(causal)
        self._mixed = mixed

    def _forward(self, rows: Sequence[Seat], *rest: Any) -> Any:
        if self._mixed is not None:
            self._mixed.choose([row.member for row in rows])
        return super()._forward(rows, *rest)


@dataclass
class Network:
    """A network in memory, the models that it answers for, and what it is doing.

    `mixed`, where there is one, has the adapters of `members` in their order.
    """

    causal: Any
    template: Template
    members: Sequence[str]
    mixed: Mixed | None = None
    waiting: deque[Seat] = field(default_factory=deque)
    reading: Reading[Seat] | None = None

    def __post_init__(self) -> None:
        self.running = _Running(self.causal, self.mixed)
        self.threads = 1 if bytes_of(self.causal) < SMALL else torch.get_num_threads()
        """How many compute: what takes no time to share out takes longer if it is."""

    def decode(self, request: Request) -> Callable[[Ids], str]:
        """What turns the tokens of an answer into its text."""
        return self.template.decode_text if request.goes_on else self.template.decode

    @property
    def seats(self) -> list[Seat]:
        """All that are being answered or read."""
        return [*self.running.rows, *(self.reading.rows if self.reading else ())]

    @property
    def busy(self) -> bool:
        return bool(self.waiting or self.reading or self.running.rows)


class Counts(NamedTuple):
    """How many requests wait and are being answered, and how many tokens have been written."""

    waiting: int
    answering: int
    written: int


class Scheduler:
    """Answers requests on a thread of its own.

    At most `batch` are answered at once by a network, and at most `queue` wait besides.
    """

    def __init__(self, networks: Sequence[Network], *, batch: int, queue: int) -> None:
        self._networks = networks
        self._batch, self._queue = batch, queue
        self._at = {name: network for network in networks for name in network.members}
        self._new: deque[Seat] = deque()
        self._work: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._wake = threading.Condition()
        self._written = 0
        self._ending = False
        self._thread = threading.Thread(target=self._compute, name="decoding", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        """Stops after the token that is being computed; unfinished answers break."""
        with self._wake:
            self._ending = True
            self._wake.notify()
        self._thread.join()

    def submit(self, *requests: Request) -> list[Answer]:
        """Queues requests, all of them or none; called where the event loop runs.

        Raises:
            Busy: as many requests wait as may.
        """
        seats = [self._seat(request) for request in requests]
        with self._wake:
            if self.counts.waiting + len(seats) > self._queue:
                raise Busy
            self._new += seats
            self._wake.notify()
        return [seat.answer for seat in seats]

    def _seat(self, request: Request) -> Seat:
        network = self._at[request.model]
        return Seat(
            request.prompt,
            request.sampling,
            request.seed,
            request.alternatives,
            member=network.members.index(request.model),
            answer=Answer(request),
            text=GrowingText(network.decode(request), request.until),
        )

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` gives, done by the thread that computes, between two tokens."""
        future: Future[T] = Future()
        with self._wake:
            self._work.append((work, future))
            self._wake.notify()
        return await asyncio.wrap_future(future)

    @property
    def counts(self) -> Counts:
        waiting = len(self._new) + sum(len(network.waiting) for network in self._networks)
        answering = sum(len(network.seats) for network in self._networks)
        return Counts(waiting, answering, self._written)

    # -- the thread that computes ---------------------------------------------------------------

    def _compute(self) -> None:
        while self._next_turn():
            for network in self._networks:
                if not network.busy:
                    continue
                try:
                    self._turn(network)
                except Exception as error:
                    # whatever it was, it must not end the thread that all others wait for
                    logging.getLogger(__name__).exception("an answer broke")
                    _break(network, error)
        for network in self._networks:
            _break(network, Broken("the server has been stopped"))

    def _next_turn(self) -> bool:
        """Waits until there is something to do; takes new requests, and does other work."""
        with self._wake:
            while not (
                self._ending
                or self._new
                or self._work
                or any(network.busy for network in self._networks)
            ):
                self._wake.wait()
            if self._ending:
                return False
            new, self._new = self._new, deque()
            work, self._work = self._work, deque()
            for seat in new:
                self._at[seat.answer.request.model].waiting.append(seat)
        for what, future in work:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(what())
                except Exception as error:  # noqa: BLE001  # it is raised where the result is awaited
                    future.set_exception(error)
        return True

    def _turn(self, network: Network) -> None:
        """A part of a prompt, and a token for each row."""
        if torch.get_num_threads() != network.threads:
            torch.set_num_threads(network.threads)
        running = network.running
        for seat in network.seats:
            if seat.answer.closed and seat in running.rows:
                running.remove(seat)
        if network.reading is None:
            network.reading = self._admit(network)
        if before := list(running.rows):
            running.step()
            self._tell(network, before)
        reading = network.reading
        if reading is not None and running.read(reading, max(1, PART // len(reading.rows))):
            network.reading = None
            self._tell(network, reading.rows)

    def _admit(self, network: Network) -> Reading[Seat] | None:
        """Those that come next, of about one length: they are padded to the longest of them."""
        waiting = network.waiting
        free = self._batch - len(network.running.rows)
        taken: list[Seat] = []
        kept: list[Seat] = []
        while waiting:
            seat = waiting.popleft()
            if seat.answer.closed:
                continue
            alike = not taken or 0.5 <= len(seat.prompt) / len(taken[0].prompt) <= 2
            (taken if alike and len(taken) < free else kept).append(seat)
        waiting.extend(kept)
        return Reading(taken) if taken else None

    def _tell(self, network: Network, seats: Sequence[Seat]) -> None:
        """Sends what the last token of each gave; those that have ended leave."""
        self._written += len(seats)
        found: list[tuple[Answer, Piece | Broken]] = []
        for seat in seats:
            request = seat.answer.request
            ended = how_ended(seat, seat.text, network.template, request.limit)
            whole = None
            if ended is not None:
                network.running.remove(seat)
                whole = network.decode(request)(ids(seat.written))
                whole = whole[: first_of(whole, request.until)]
            text = seat.text.fresh(whole)
            tokens, noted = seat.written[seat.told :], seat.noted[seat.told :]
            if text or ended is not None:
                seat.told = len(seat.written)
                found.append((seat.answer, Piece(text, tokens, noted, ended)))
        _deliver(found)


def _break(network: Network, error: Exception) -> None:
    seats = (*network.seats, *network.waiting)
    _deliver([(seat.answer, Broken(str(error))) for seat in seats])
    network.waiting.clear()
    network.reading = None
    network.running = _Running(network.causal, network.mixed)
