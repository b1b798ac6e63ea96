"""Answers to many prompts, with as many in the running batch as there is room for.

Long prompts come first. As rows finish, the next prompts take their places, so that the batch stays
full until there are none left.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

from zephyr.model.decode import GREEDY, Row, Running, Sampling
from zephyr.model.fork import Ids, ids
from zephyr.model.template import Template
from zephyr.model.text import GrowingText, first_of

Ended = Literal["end token", "stop string", "length"]
REFILL = 4
"""A quarter of the places is free before prompts join: read together they are read faster."""


class Generation(NamedTuple):
    """An answer: its ids without the end token, its text up to a stop string, and how it ended."""

    ids: Ids
    text: str
    ended: Ended

    @property
    def stopped(self) -> bool:
        """Whether it ended by itself."""
        return self.ended != "length"


class Ask(NamedTuple):
    """A prompt, and the most tokens of its answer; `seed` is for draws."""

    prompt: Ids
    limit: int
    seed: int = 0


def generate(
    causal: Any,
    template: Template,
    asks: Sequence[Ask],
    *,
    room: int,
    sampling: Sampling = GREEDY,
    until: Sequence[str] = (),
    done: Callable[[int, Generation], None] = lambda at, found: None,
    hear: Callable[[int, str], None] | None = None,
) -> list[Generation]:
    """The answer to each; the batch grows to about `room` tokens.

    `done(i, answer)` is called as soon as one is finished, and `hear(i, piece)` with its text as it
    comes: a piece ends within no character, and within nothing that may become a stop string.
    """
    waiting = deque(sorted(range(len(asks)), key=lambda i: (-len(asks[i].prompt), i)))
    found: dict[int, Generation] = {}
    running: Running[Row] = Running(causal)
    texts: dict[Row, tuple[int, GrowingText | None]] = {}
    while waiting or running.rows:
        free = _free(asks, waiting, running, room)
        if free and (free == len(waiting) or REFILL * free >= len(running.rows)):
            at = [waiting.popleft() for _ in range(free)]
            rows = [Row(asks[i].prompt, sampling, asks[i].seed) for i in at]
            for i, row in zip(at, rows, strict=True):
                texts[row] = i, GrowingText(template.decode, until) if until or hear else None
            running.add(rows)
        else:
            rows = list(running.rows)
            running.step()
        for row in rows:
            i, text = texts[row]
            ended = how_ended(row, text, template, asks[i].limit)
            if ended is not None:
                running.remove(row)
                found[i] = Generation(ids(row.written), _whole(row, template, until), ended)
                done(i, found[i])
            if hear is not None and text is not None:
                hear(i, text.fresh(None if ended is None else found[i].text))
    return [found[i] for i in range(len(asks))]


def _free(asks: Sequence[Ask], waiting: deque[int], running: Running[Row], room: int) -> int:
    """How many more prompts may join; one always may where the batch is empty."""
    if not waiting:
        return 0
    longest = max(len(asks[waiting[0]].prompt), *(row.length for row in running.rows), 0)
    most = max(1, room // (longest + max(asks[i].limit for i in waiting)))
    return min(len(waiting), max(0, most - len(running.rows)))


def how_ended(row: Row, text: GrowingText | None, template: Template, limit: int) -> Ended | None:
    """How the last token ended the answer, if it did; an end token is taken away."""
    if row.written[-1] in template.stops:
        row.written.pop()
        del row.noted[len(row.written) :]
        return "end token"
    if text is not None:
        text.add(row.written[-1])
        if text.stopped:
            return "stop string"
    return "length" if len(row.written) >= limit else None


def _whole(row: Row, template: Template, until: Sequence[str]) -> str:
    text = template.decode(ids(row.written))
    return text[: first_of(text, until)]
