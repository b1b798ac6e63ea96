"""Incremental detokenization of a streamed answer, and its stop strings.

A token may hold a part of a character, and a character or a stop string may take several tokens.
"""

from collections.abc import Callable, Sequence

from zephyr.model.example import TokenIds, to_token_ids

REPLACEMENT_CHARACTER = "\ufffd"
"""What an unfinished character decodes to."""


class IncrementalDetokenizer:
    """Incremental detokenizer: decodes each new token with only the few before it.

    `decode_start` decodes the start of an answer, where a chat template may take a space, and
    `decode_rest` what comes later.
    """

    def __init__(
        self,
        decode_start: Callable[[TokenIds], str],
        decode_rest: Callable[[TokenIds], str],
        stop: Sequence[str] = (),
    ) -> None:
        self._decode_start, self._decode_rest = decode_start, decode_rest
        self._stop = stop
        self._longest_stop = max(map(len, stop), default=0)
        self._tokens: list[int] = []
        self._prefix_offset = self._read_offset = 0
        self._text = ""
        self.num_emitted = 0
        """Characters of the text that have been taken."""
        self.token_ends: list[int] = []
        """Where in the text each token ends that is decoded: tokens of one character end together.
        """
        self.has_stopped = False
        """Whether a stop string is in it."""

    def add_token(self, token: int) -> None:
        """Adds a token, and searches the new text for stop strings."""
        self._tokens.append(token)
        decode = self._decode_rest if self._prefix_offset else self._decode_start
        previous_text = decode(to_token_ids(self._tokens[self._prefix_offset : self._read_offset]))
        window_text = decode(to_token_ids(self._tokens[self._prefix_offset :]))
        if window_text.endswith(REPLACEMENT_CHARACTER):
            return
        search_start = max(0, len(self._text) - self._longest_stop)
        new_text = window_text[len(previous_text) :]
        self._text += new_text
        self.token_ends += [len(self._text)] * (len(self._tokens) - self._read_offset)
        if new_text:  # a window that begins with special tokens alone would lose a space
            self._prefix_offset = self._read_offset
        self._read_offset = len(self._tokens)
        self.has_stopped = find_stop(self._text[search_start:], self._stop) is not None

    def take_new_text(self, final_text: str | None) -> str:
        """The text to stream since the last call; `final_text` is the whole once it is finished."""
        text = (
            self._text[: len(self._text) - self._held_back_length()]
            if final_text is None
            else final_text
        )
        new_text = text[self.num_emitted :]
        self.num_emitted += len(new_text)
        return new_text

    def _held_back_length(self) -> int:
        """Length of the end of the text that may be the start of a stop string."""
        max_length = min(self._longest_stop - 1, len(self._text))
        lengths = (
            n
            for n in range(max_length, 0, -1)
            if self._text.endswith(tuple(_stop_prefixes(self._stop, n)))
        )
        return next(lengths, 0)


def find_stop(text: str, stop: Sequence[str]) -> int | None:
    """Where the first stop string begins in a text; None where none is in it."""
    return min((at for stop_string in stop if (at := text.find(stop_string)) >= 0), default=None)


def _stop_prefixes(stop: Sequence[str], length: int) -> list[str]:
    return [stop_string[:length] for stop_string in stop if len(stop_string) > length]
