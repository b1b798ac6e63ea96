"""Request scheduler with continuous batching: requests join the running batch at any step.

One thread runs all model runners in turn. Prefill is chunked and alternates with decode steps, so
that a long prompt does not stall running requests. The thread never waits for a client: unread
chunks stay in the answer's queue, and are dropped with it.
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

from zephyr.model.decoding import (
    GREEDY,
    DecodeBatch,
    DecodeRow,
    Prefill,
    SamplingParams,
    TokenLogprob,
)
from zephyr.model.detokenizer import IncrementalDetokenizer, find_stop
from zephyr.model.example import TokenIds, to_token_ids
from zephyr.model.fp16_linear import weight_bytes
from zephyr.model.generate import FinishReason, find_finish_reason
from zephyr.model.multi_lora import MultiLora
from zephyr.model.template import ChatTemplate

T = TypeVar("T")

SINGLE_THREAD_MAX_BYTES = 1 << 26
"""Bytes of weights below which one CPU thread is faster than several."""

PREFILL_CHUNK_TOKENS = 512
"""Tokens of a prefill chunk (over all its rows), between two decode steps."""


class QueueFullError(Exception):
    """The request queue is full (HTTP 429)."""


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
    is_text_completion: bool = False
    """Whether the prompt is raw text (no chat): then a leading space of the completion is kept."""


class StreamChunk(NamedTuple):
    """New text and tokens of an answer since the last chunk; the last has a finish reason.

    `tokens` are without an end token. They may be ahead of the text, which never ends within a
    character, nor within a possible stop string.
    """

    text: str
    tokens: list[int]
    logprobs: list[TokenLogprob]
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
            chunks[-1].finish_reason or "length",
        )

    def close(self) -> None:
        self.closed = True

    def _put(self, chunk: StreamChunk | GenerationError) -> None:
        self._chunks.put_nowait(chunk)


def _deliver_chunks(chunks: Sequence[tuple[AnswerStream, StreamChunk | GenerationError]]) -> None:
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
    """A complete answer: text, tokens, logprobs and finish reason."""

    text: str
    tokens: list[int]
    logprobs: list[TokenLogprob]
    finish_reason: FinishReason


@dataclass(eq=False, kw_only=True)
class Slot(DecodeRow):
    """A batch slot: one running request in the decode batch, and the index of its model."""

    model_index: int
    answer: AnswerStream
    text: IncrementalDetokenizer
    num_sent_tokens: int = 0
    """Tokens that have been sent in chunks."""


class _MultiLoraBatch(DecodeBatch[Slot]):
    """A decode batch in which each row uses the LoRA adapters of its model."""

    def __init__(self, causal: Any, multi_lora: MultiLora | None) -> None:
        super().__init__(causal)
        self._multi_lora = multi_lora

    def _forward(self, rows: Sequence[Slot], *rest: Any) -> Any:
        if self._multi_lora is not None:
            self._multi_lora.select_models([row.model_index for row in rows])
        return super()._forward(rows, *rest)


@dataclass
class ModelRunner:
    """Model runner: a base model, its (LoRA) models, their queue, prefill and decode batch.

    `multi_lora`, if any, has the adapters of `model_names` in their order.
    """

    causal: Any
    template: ChatTemplate
    model_names: Sequence[str]
    multi_lora: MultiLora | None = None
    waiting: deque[Slot] = field(default_factory=deque)
    prefill: Prefill[Slot] | None = None

    def __post_init__(self) -> None:
        self.decode_batch = _MultiLoraBatch(self.causal, self.multi_lora)
        self.num_threads = (
            1 if weight_bytes(self.causal) < SINGLE_THREAD_MAX_BYTES else torch.get_num_threads()
        )
        """CPU threads of torch: for a small model one is faster than several."""

    def text_decoder(self, request: GenerationRequest) -> Callable[[TokenIds], str]:
        """The function that decodes (detokenizes) the answer to a request."""
        return (
            self.template.decode_continued_text
            if request.is_text_completion
            else self.template.decode
        )

    @property
    def slots(self) -> list[Slot]:
        """All slots in the decode batch and in prefill."""
        return [*self.decode_batch.rows, *(self.prefill.rows if self.prefill else ())]

    @property
    def is_busy(self) -> bool:
        return bool(self.waiting or self.prefill or self.decode_batch.rows)


class SchedulerStats(NamedTuple):
    """Statistics: numbers of waiting (queued) and running requests, and of generated tokens."""

    waiting: int
    running: int
    generated_tokens: int


class Scheduler:
    """Continuous-batching scheduler: prefill and decode steps of all requests on one thread.

    At most `batch` requests run at once on a model runner, and at most `queue` wait in the queue.
    """

    def __init__(self, runners: Sequence[ModelRunner], *, batch: int, queue: int) -> None:
        self._runners = runners
        self._max_batch, self._max_queue = batch, queue
        self._runner_by_model = {name: runner for runner in runners for name in runner.model_names}
        self._new_slots: deque[Slot] = deque()
        self._calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._wake = threading.Condition()
        self._generated_tokens = 0
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run_loop, name="decoding", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def shutdown(self) -> None:
        """Stops the thread after the current step; unfinished answers fail."""
        with self._wake:
            self._is_stopping = True
            self._wake.notify()
        self._thread.join()

    def submit(self, *requests: GenerationRequest) -> list[AnswerStream]:
        """Queues requests, all or none; to be called from an event loop.

        Raises:
            QueueFullError: the queue has not enough room.
        """
        slots = [self._make_slot(request) for request in requests]
        with self._wake:
            if self.stats.waiting + len(slots) > self._max_queue:
                raise QueueFullError
            self._new_slots += slots
            self._wake.notify()
        return [slot.answer for slot in slots]

    def _make_slot(self, request: GenerationRequest) -> Slot:
        runner = self._runner_by_model[request.model]
        return Slot(
            request.prompt,
            request.sampling,
            request.seed,
            request.top_logprobs,
            model_index=runner.model_names.index(request.model),
            answer=AnswerStream(request),
            text=IncrementalDetokenizer(runner.text_decoder(request), request.stop),
        )

    async def run_between_steps(self, function: Callable[[], T]) -> T:
        """Runs a function on the scheduler's thread between two steps, and awaits its result."""
        future: Future[T] = Future()
        with self._wake:
            self._calls.append((function, future))
            self._wake.notify()
        return await asyncio.wrap_future(future)

    @property
    def stats(self) -> SchedulerStats:
        waiting = len(self._new_slots) + sum(len(runner.waiting) for runner in self._runners)
        running = sum(len(runner.slots) for runner in self._runners)
        return SchedulerStats(waiting, running, self._generated_tokens)

    # -- the scheduler's thread -----------------------------------------------------------------

    def _run_loop(self) -> None:
        while self._wait_for_work():
            for runner in self._runners:
                if not runner.is_busy:
                    continue
                try:
                    self._step(runner)
                except Exception as error:
                    # no error may end the thread: all other requests wait for it
                    logging.getLogger(__name__).exception("an answer broke")
                    _fail_all(runner, error)
        for runner in self._runners:
            _fail_all(runner, GenerationError("the server has been stopped"))

    def _wait_for_work(self) -> bool:
        """Waits for work, queues new requests, and runs pending calls; False when stopping."""
        with self._wake:
            while not (
                self._is_stopping
                or self._new_slots
                or self._calls
                or any(runner.is_busy for runner in self._runners)
            ):
                self._wake.wait()
            if self._is_stopping:
                return False
            new_slots, self._new_slots = self._new_slots, deque()
            calls, self._calls = self._calls, deque()
            for slot in new_slots:
                self._runner_by_model[slot.answer.request.model].waiting.append(slot)
        for function, future in calls:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function())
                except Exception as error:  # noqa: BLE001  # raised where the result is awaited
                    future.set_exception(error)
        return True

    def _step(self, runner: ModelRunner) -> None:
        """A decode step for every row, and a chunk of the current prefill."""
        if torch.get_num_threads() != runner.num_threads:
            torch.set_num_threads(runner.num_threads)
        decode_batch = runner.decode_batch
        for slot in runner.slots:
            if slot.answer.closed and slot in decode_batch.rows:
                decode_batch.remove(slot)
        if runner.prefill is None:
            runner.prefill = self._schedule_prefill(runner)
        if decoded_slots := list(decode_batch.rows):
            decode_batch.step()
            self._send_chunks(runner, decoded_slots)
        prefill = runner.prefill
        if prefill is not None and decode_batch.prefill_chunk(
            prefill, max(1, PREFILL_CHUNK_TOKENS // len(prefill.rows))
        ):
            runner.prefill = None
            self._send_chunks(runner, prefill.rows)

    def _schedule_prefill(self, runner: ModelRunner) -> Prefill[Slot] | None:
        """Schedules the next prefill: queued prompts of similar length, since they are padded."""
        waiting = runner.waiting
        free_slots = self._max_batch - len(runner.decode_batch.rows)
        prefill_slots: list[Slot] = []
        deferred_slots: list[Slot] = []
        while waiting:
            slot = waiting.popleft()
            if slot.answer.closed:
                continue
            has_similar_length = (
                not prefill_slots or 0.5 <= len(slot.prompt) / len(prefill_slots[0].prompt) <= 2
            )
            (
                prefill_slots
                if has_similar_length and len(prefill_slots) < free_slots
                else deferred_slots
            ).append(slot)
        waiting.extend(deferred_slots)
        return Prefill(prefill_slots) if prefill_slots else None

    def _send_chunks(self, runner: ModelRunner, slots: Sequence[Slot]) -> None:
        """Sends each slot's new chunk; finished requests leave the decode batch."""
        self._generated_tokens += len(slots)
        chunks: list[tuple[AnswerStream, StreamChunk | GenerationError]] = []
        for slot in slots:
            request = slot.answer.request
            finish_reason = find_finish_reason(
                slot, slot.text, runner.template, request.max_new_tokens
            )
            full_text = None
            if finish_reason is not None:
                runner.decode_batch.remove(slot)
                full_text = runner.text_decoder(request)(to_token_ids(slot.output_ids))
                full_text = full_text[: find_stop(full_text, request.stop)]
            text = slot.text.take_new_text(full_text)
            tokens, logprobs = (
                slot.output_ids[slot.num_sent_tokens :],
                slot.output_logprobs[slot.num_sent_tokens :],
            )
            if text or finish_reason is not None:
                slot.num_sent_tokens = len(slot.output_ids)
                chunks.append((slot.answer, StreamChunk(text, tokens, logprobs, finish_reason)))
        _deliver_chunks(chunks)


def _fail_all(runner: ModelRunner, error: Exception) -> None:
    """Fails all requests of a model runner and resets its batch."""
    slots = (*runner.slots, *runner.waiting)
    _deliver_chunks([(slot.answer, GenerationError(str(error))) for slot in slots])
    runner.waiting.clear()
    runner.prefill = None
    runner.decode_batch = _MultiLoraBatch(runner.causal, runner.multi_lora)
