"""Aligns the tokens of an answer with its text: the bytes of each token, for `logprobs`."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple

from zephyr.model.decoding import TokenLogprob
from zephyr.model.detokenizer import REPLACEMENT_CHARACTER
from zephyr.model.token_bytes import TokenBytes
from zephyr.tutor.answer_stream import FullAnswer, StreamChunk


class TokenEntry(NamedTuple):
    """A token as `logprobs` show it: its bytes, log-probability, and those of the likeliest.

    `start` is where the token begins in the text; tokens of one character begin together.
    """

    data: bytes
    logprob: float
    start: int
    top_logprobs: list[tuple[bytes, float]]

    @property
    def text(self) -> str:
        return token_text(self.data)


def token_text(data: bytes) -> str:
    """The text of a token; of a part of a character its bytes, as OpenAI writes them."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


class TokenAligner:
    """Aligns the tokens of one answer, as they come, so that their bytes joined are the text's.

    The space that a chat template takes from the first token is not counted to it, and of a token
    in which a stop string begins only what stands before. Where a model writes no UTF-8, tokens
    keep their bytes, while the text has replacement characters.
    """

    def __init__(self, token_bytes: TokenBytes, tokenizer: Any) -> None:
        self._token_bytes, self._tokenizer = token_bytes, tokenizer
        self._special_ids = set(tokenizer.all_special_ids)
        self._text = ""
        self._end = 0

    def align(self, chunk: StreamChunk | FullAnswer) -> list[TokenEntry]:
        """The entries of a chunk's tokens, without those that begin in a stop string."""
        self._text += chunk.text
        entries: list[TokenEntry] = []
        found = zip(chunk.token_ends, chunk.tokens, chunk.logprobs, strict=True)
        for end, group in groupby(found, key=lambda item: item[0]):
            _, tokens, logprobs = zip(*group, strict=True)
            start, self._end = self._end, min(end, len(self._text))
            if start < self._end or end <= len(self._text):
                entries += self._align_group(tokens, logprobs, start)
        return entries

    def _align_group(
        self, tokens: Sequence[int], logprobs: Sequence[TokenLogprob], start: int
    ) -> list[TokenEntry]:
        """The entries of tokens that end together, mostly of one."""
        text = self._text[start : self._end]
        pieces, removed = self._split(tokens, text)
        return [
            TokenEntry(
                piece,
                entry.logprob,
                start,
                [
                    (piece if other == token else self._data(other).removeprefix(removed), logprob)
                    for other, logprob in entry.top_logprobs
                ],
            )
            for token, piece, entry in zip(tokens, pieces, logprobs, strict=True)
        ]

    def _split(self, tokens: Sequence[int], text: str) -> tuple[list[bytes], bytes]:
        """The bytes of each token in their text, and what was removed before the first."""
        data = text.encode()
        pieces = [b"" if token in self._special_ids else self._data(token) for token in tokens]
        joined = b"".join(pieces)
        offset = joined.find(data)
        if offset < 0 and REPLACEMENT_CHARACTER in text:
            return pieces, b""
        if offset < 0:  # a tokenizer that cleans up what it has decoded
            return [*[b""] * (len(tokens) - 1), data], b""
        clipped, position = [], 0
        for piece in pieces:
            begin, end = (
                min(max(bound - position, 0), len(piece)) for bound in (offset, offset + len(data))
            )
            clipped.append(piece[begin:end])
            position += len(piece)
        return clipped, joined[:offset] if len(tokens) == 1 else b""

    def _data(self, token: int) -> bytes:
        data = self._token_bytes.of(token)
        return str(self._tokenizer.decode([token])).encode() if data is None else data
