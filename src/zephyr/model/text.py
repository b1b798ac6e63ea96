"""The text of an answer while it is written, and the strings at which it stops.

A token may be a part of a character, and a character or a stop string may take several tokens.
"""

from collections.abc import Callable, Sequence

from zephyr.model.fork import Ids, ids

BROKEN = "\ufffd"
"""What is decoded of an unfinished character."""


class GrowingText:
    """Text that grows by tokens: each is decoded once or twice, with the one before it alone."""

    def __init__(self, decode: Callable[[Ids], str], until: Sequence[str] = ()) -> None:
        self._decode = decode
        self._until = until
        self._longest = max(map(len, until), default=0)
        self._tokens: list[int] = []
        self._start = self._read = 0
        self._text = ""
        self._shown = 0
        self.stopped = False
        """Whether a stop string is in it."""

    def add(self, token: int) -> None:
        self._tokens.append(token)
        before = self._decode(ids(self._tokens[self._start : self._read]))
        now = self._decode(ids(self._tokens[self._start :]))
        if now.endswith(BROKEN):
            return
        seen = max(0, len(self._text) - self._longest)
        self._text += now[len(before) :]
        self._start, self._read = self._read, len(self._tokens)
        self.stopped = first_of(self._text[seen:], self._until) is not None

    def fresh(self, whole: str | None) -> str:
        """What has come since it was last asked; `whole` is the whole text once it is finished."""
        text = self._text[: len(self._text) - self._held()] if whole is None else whole
        piece = text[self._shown :]
        self._shown += len(piece)
        return piece

    def _held(self) -> int:
        """The length of the end that may be the start of a stop string."""
        most = min(self._longest - 1, len(self._text))
        ends = (
            n for n in range(most, 0, -1) if self._text.endswith(tuple(_starts(self._until, n)))
        )
        return next(ends, 0)


def first_of(text: str, until: Sequence[str]) -> int | None:
    """Where the first of some strings begins in a text; None where none is in it."""
    return min((at for stop in until if (at := text.find(stop)) >= 0), default=None)


def _starts(until: Sequence[str], length: int) -> list[str]:
    return [stop[:length] for stop in until if len(stop) > length]
