"""Request scheduler with continuous batching: requests join the running batch at any step.

One thread runs all model runners in turn. Prefill is chunked and alternates with decode steps, so
that a long prompt does not stall running requests. The thread never waits for a client: unread
chunks stay in the answer's queue, and are dropped with it.

Clients take turns: the next is who has the fewest answers being written. One who has none enters
even a full batch or queue, up to half as many again.
"""

import asyncio
import logging
import threading
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import chain, count
from typing import Any, NamedTuple, TypeVar

import torch

from zephyr.model.decoding import DecodeBatch, DecodeRow, Prefill
from zephyr.model.detokenizer import IncrementalDetokenizer, find_stop
from zephyr.model.example import TokenIds, to_token_ids
from zephyr.model.fp16_linear import weight_bytes
from zephyr.model.generate import FinishReason, find_finish_reason
from zephyr.model.multi_lora import MultiLora
from zephyr.model.template import ChatTemplate
from zephyr.model.token_bytes import TokenBytes
from zephyr.tutor.answer_stream import (
    AnswerStream,
    GenerationError,
    GenerationRequest,
    StreamChunk,
    deliver_chunks,
)

T = TypeVar("T")

SINGLE_THREAD_MAX_BYTES = 1 << 26
"""Bytes of weights below which one CPU thread is faster than several."""

PREFILL_CHUNK_TOKENS = 512
"""Tokens of a prefill chunk (over all its rows), between two decode steps."""

PREFILL_MAX_TOKENS = 2048
"""Most tokens of several prompts that are prefilled together: the next prompts wait for them."""


class QueueFullError(Exception):
    """The request queue is full (HTTP 429)."""


@dataclass(eq=False, kw_only=True)
class Slot(DecodeRow):
    """A batch slot: one running request in the decode batch, and the index of its model."""

    model_index: int
    answer: AnswerStream
    text: IncrementalDetokenizer
    submission: int
    """Number of the call that submitted the request: several completions of one prompt share it."""
    num_sent_tokens: int = 0
    """Tokens that have been sent in chunks."""

    @property
    def client(self) -> str:
        return self.answer.request.client


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
    waiting: list[Slot] = field(default_factory=list)
    prefill: Prefill[Slot] | None = None

    def __post_init__(self) -> None:
        self.decode_batch = _MultiLoraBatch(self.causal, self.multi_lora)
        self.num_threads = (
            1 if weight_bytes(self.causal) < SINGLE_THREAD_MAX_BYTES else torch.get_num_threads()
        )
        """CPU threads of torch: for a small model one is faster than several."""
        self.token_bytes = TokenBytes(self.template.tokenizer)

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
        self._new_slots: list[Slot] = []
        self._calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._wake = threading.Condition()
        self._submissions = count()
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
        """Queues the requests of one client, all or none; to be called from an event loop.

        Raises:
            QueueFullError: the queue has not enough room.
        """
        submission = next(self._submissions)
        slots = [self._make_slot(request, submission) for request in requests]
        with self._wake:
            waiting = list(chain(self._new_slots, *(runner.waiting for runner in self._runners)))
            is_newcomer = all(slot.client != slots[0].client for slot in waiting)
            if len(waiting) + len(slots) > _with_newcomers(self._max_queue, is_newcomer):
                raise QueueFullError
            self._new_slots += slots
            self._wake.notify()
        return [slot.answer for slot in slots]

    def _make_slot(self, request: GenerationRequest, submission: int) -> Slot:
        runner = self._runner_by_model[request.model]
        return Slot(
            request.prompt,
            request.sampling,
            request.seed,
            request.top_logprobs,
            model_index=runner.model_names.index(request.model),
            answer=AnswerStream(request),
            text=IncrementalDetokenizer(
                runner.text_decoder(request), runner.template.decode_continued_text, request.stop
            ),
            submission=submission,
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
            new_slots, self._new_slots = self._new_slots, []
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
        if runner.prefill is not None and all(s.answer.closed for s in runner.prefill.rows):
            runner.prefill = None
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
        """Schedules the next prefill: queued prompts of similar length, since they are padded.

        Turns are by client, and those of a client by submission: who has the fewest rows is next.
        """
        runner.waiting = [slot for slot in runner.waiting if not slot.answer.closed]
        if not runner.waiting:
            return None
        rows = runner.decode_batch.rows
        num_rows = Counter(chain((s.client for s in rows), (s.submission for s in rows)))
        candidates = list(runner.waiting)
        prefill_slots: list[Slot] = []
        while candidates:
            slot = min(candidates, key=lambda s: (num_rows[s.client], num_rows[s.submission]))
            max_rows = _with_newcomers(self._max_batch, not num_rows[slot.client])
            if len(rows) + len(prefill_slots) >= max_rows:
                break
            candidates.remove(slot)
            if _can_prefill_together(prefill_slots, slot):
                prefill_slots.append(slot)
                num_rows.update((slot.client, slot.submission))
        runner.waiting = [slot for slot in runner.waiting if slot not in prefill_slots]
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
            text_end = full_text = None
            if finish_reason is not None:
                runner.decode_batch.remove(slot)
                full_text = runner.text_decoder(request)(to_token_ids(slot.output_ids))
                text_end = len(full_text)
                full_text = full_text[: find_stop(full_text, request.stop)]
            text = slot.text.take_new_text(full_text)
            if text or finish_reason is not None:
                chunks.append((slot.answer, _next_chunk(slot, text, text_end, finish_reason)))
        deliver_chunks(chunks)


def _with_newcomers(limit: int, is_newcomer: bool) -> int:
    """A limit of answers: half as many again for a client who has none."""
    return limit + limit // 2 if is_newcomer else limit


def _can_prefill_together(slots: Sequence[Slot], slot: Slot) -> bool:
    """Whether a prompt joins others in a prefill, in which all are padded to the longest."""
    lengths = [len(slot.prompt), *(len(other.prompt) for other in slots)]
    return not slots or (
        0.5 <= lengths[0] / lengths[1] <= 2 and max(lengths) * len(lengths) <= PREFILL_MAX_TOKENS
    )


def _next_chunk(
    slot: Slot, text: str, text_end: int | None, finish_reason: FinishReason | None
) -> StreamChunk:
    """The chunk of new text with its tokens; `text_end` is where all tokens of a finished end."""
    start, end = slot.num_sent_tokens, len(slot.output_ids)
    token_ends: list[int] = []
    if slot.top_logprobs is not None:
        if text_end is None:
            end = bisect_right(slot.text.token_ends, slot.text.num_emitted)
        token_ends = slot.text.token_ends[start:end]
        token_ends += [text_end or 0] * (end - start - len(token_ends))
    slot.num_sent_tokens = end
    return StreamChunk(
        text,
        slot.output_ids[start:end],
        slot.output_logprobs[start:end],
        token_ends,
        finish_reason,
    )


def _fail_all(runner: ModelRunner, error: Exception) -> None:
    """Fails all requests of a model runner and resets its batch."""
    slots = (*runner.slots, *runner.waiting)
    deliver_chunks([(slot.answer, GenerationError(str(error))) for slot in slots])
    runner.waiting.clear()
    runner.prefill = None
    runner.decode_batch = _MultiLoraBatch(runner.causal, runner.multi_lora)
