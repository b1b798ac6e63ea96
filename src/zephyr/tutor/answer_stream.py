"""Generation requests and the streams of their answers, from the scheduler to a client."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import NamedTuple

from zephyr.model.decoding import GREEDY, SamplingParams, TokenLogprob
from zephyr.model.example import TokenIds
from zephyr.model.generate import FinishReason


class GenerationError(Exception):
    """Generation of an answer failed by an internal error, or the server was stopped."""


@dataclass(frozen=True)
class GenerationRequest:
    """A generation request: model, prompt, sampling params, seed, stop strings, max new tokens.

    With `top_logprobs`, logprobs are returned, with this many of the most likely tokens.
    """

    model: str
    prompt: TokenIds
    max_new_tokens: int
    sampling: SamplingParams = GREEDY
    seed: int = 0
    stop: tuple[str, ...] = ()
    top_logprobs: int | None = None
    client: str = ""
    """Who asks: the clients take turns."""
    is_text_completion: bool = False
    """Whether the prompt is raw text (no chat): then a leading space of the completion is kept."""


class StreamChunk(NamedTuple):
    """New text and tokens of an answer since the last chunk; the last has a finish reason.

    `tokens` are without an end token. They may be ahead of the text, which never ends within a
    character, nor within a possible stop string. With logprobs they are not: `token_ends` says
    where in the whole answer's text each ends, or would end without the stop string that cut it.
    """

    text: str
    tokens: list[int]
    logprobs: list[TokenLogprob]
    token_ends: list[int]
    finish_reason: FinishReason | None


class AnswerStream:
    """Async stream of an answer's chunks; closing it (client disconnect) frees its batch slot."""

    def __init__(self, request: GenerationRequest) -> None:
        self.request = request
        self.closed = False
        self._loop = asyncio.get_running_loop()
        self._chunks: asyncio.Queue[StreamChunk | GenerationError] = asyncio.Queue()

    async def __aiter__(self) -> AsyncGenerator[StreamChunk]:
        try:
            while True:
                chunk = await self._chunks.get()
                if isinstance(chunk, GenerationError):
                    raise chunk
                yield chunk
                if chunk.finish_reason is not None:
                    return
        finally:
            self.close()

    async def collect(self) -> "FullAnswer":
        """Collects the whole answer, once it has finished (for a response without streaming)."""
        chunks = [chunk async for chunk in self]
        return FullAnswer(
            "".join(chunk.text for chunk in chunks),
            [token for chunk in chunks for token in chunk.tokens],
            [logprob for chunk in chunks for logprob in chunk.logprobs],
            [end for chunk in chunks for end in chunk.token_ends],
            chunks[-1].finish_reason or "length",
        )

    def close(self) -> None:
        self.closed = True

    def _put(self, chunk: StreamChunk | GenerationError) -> None:
        self._chunks.put_nowait(chunk)


def deliver_chunks(chunks: Sequence[tuple[AnswerStream, StreamChunk | GenerationError]]) -> None:
    """Delivers chunks to the event loops of their answers (thread-safe), one wake-up each."""
    loops: dict[
        asyncio.AbstractEventLoop, list[tuple[AnswerStream, StreamChunk | GenerationError]]
    ] = {}
    for answer, chunk in chunks:
        loops.setdefault(answer._loop, []).append((answer, chunk))
    for loop, loop_chunks in loops.items():
        if not loop.is_closed():
            loop.call_soon_threadsafe(_put_all, loop_chunks)


def _put_all(chunks: Sequence[tuple[AnswerStream, StreamChunk | GenerationError]]) -> None:
    for answer, chunk in chunks:
        answer._put(chunk)


class FullAnswer(NamedTuple):
    """A complete answer: text, tokens, logprobs, ends of tokens, and finish reason."""

    text: str
    tokens: list[int]
    logprobs: list[TokenLogprob]
    token_ends: list[int]
    finish_reason: FinishReason


async def merge_streams(answers: Sequence[AnswerStream]) -> AsyncGenerator[tuple[int, StreamChunk]]:
    """Merges the streams of several answers: (index, chunk) pairs as they come.

    All streams are closed at the end, also after an error or cancellation.
    """
    if len(answers) == 1:  # without asyncio tasks, which cost as much as a token of a small model
        async with aclosing(aiter(answers[0])) as chunks:
            async for chunk in chunks:
                yield 0, chunk
        return
    streams = [aiter(answer) for answer in answers]
    pending = {asyncio.ensure_future(anext(stream)): at for at, stream in enumerate(streams)}
    try:
        while pending:
            done, _ = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in sorted(done, key=lambda task: pending[task]):
                at = pending.pop(task)
                chunk = task.result()
                if chunk.finish_reason is None:
                    pending[asyncio.ensure_future(anext(streams[at]))] = at
                yield at, chunk
    finally:
        for task in pending:
            task.cancel()
        for answer in answers:
            answer.close()
