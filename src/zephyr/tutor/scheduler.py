"""Requests that are answered together: each joins the running batch at the next token."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from zephyr.model.decode import GREEDY, Sampling
from zephyr.model.fork import Ids
from zephyr.model.generate import Ended


@dataclass(frozen=True)
class Request:
    """A prompt for a model, and how it is to be answered, in at most `limit` tokens."""

    model: str
    prompt: Ids
    limit: int
    sampling: Sampling = GREEDY
    seed: int = 0
    until: tuple[str, ...] = ()


class Piece(NamedTuple):
    """Text that has come; in the last piece, how the answer ended."""

    text: str
    ended: Ended | None


class Busy(Exception):
    """The queue is full."""


class Answer:
    """The pieces of an answer as they come; closing it gives its place in the batch free."""

    def __aiter__(self) -> AsyncIterator[Piece]:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


class Scheduler:
    """Answers requests on a thread of its own."""

    def submit(self, request: Request) -> Answer:
        """Queues a request.

        Raises:
            Busy: as many requests wait as may.
        """
        raise NotImplementedError

    async def run(self, work: Callable[[], Any]) -> Any:
        """What `work` gives, done by the thread that computes, between two tokens."""
        raise NotImplementedError
