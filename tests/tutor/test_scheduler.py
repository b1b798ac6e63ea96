"""Continuous batching: what others ask changes no answer, and who disconnects frees a slot."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from typing import Any

import numpy as np
import pytest

from tests import tiny
from zephyr.model.decoding import SamplingParams
from zephyr.model.example import TokenIds, to_token_ids
from zephyr.model.model import Model
from zephyr.tutor import scheduler
from zephyr.tutor.answer_stream import GenerationError, GenerationRequest, StreamChunk
from zephyr.tutor.scheduler import ModelRunner, QueueFullError, Scheduler
from zephyr.tutor.sse import EventStream

PROMPT_LENGTHS = (9, 3, 40, 1, 30, 12, 2, 5)
SAMPLING = SamplingParams(temperature=1.1, top_p=0.95)


def make_prompts() -> list[TokenIds]:
    rng = np.random.default_rng(0)
    return [to_token_ids(rng.integers(1, tiny.VOCAB_SIZE, n)) for n in PROMPT_LENGTHS]


def make_request(model: Model, at: int, **how: Any) -> GenerationRequest:
    return GenerationRequest("m", make_prompts()[at], how.pop("limit", 20), seed=at, **how)


async def remaining_chunks(chunks: AsyncIterator[StreamChunk]) -> list[StreamChunk]:
    return [chunk async for chunk in chunks]


Scenario = Callable[[Scheduler, Model], Coroutine[Any, Any, Any]]


def run_scenario(scenario: Scenario, batch: int = 4, queue: int = 32, endless: bool = False) -> Any:
    """Runs a scenario with a scheduler of one tiny model, and gives what it returns."""
    model = tiny.make_model("qwen2")
    if endless:
        model.template.stop_token_ids = frozenset({-1})
    found = Scheduler([ModelRunner(model.causal, model.template, ["m"])], batch=batch, queue=queue)
    found.start()
    try:
        return asyncio.run(scenario(found, model))
    finally:
        found.shutdown()


@pytest.mark.parametrize("batch", [1, 3, 8])
@pytest.mark.parametrize("chunk_tokens", [4, 512])
def test_each_gets_what_it_would_get_alone(
    batch: int, chunk_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "PREFILL_CHUNK_TOKENS", chunk_tokens)

    async def scenario(found: Scheduler, model: Model) -> list[Any]:
        answers = []
        for at in range(len(PROMPT_LENGTHS)):
            answers += found.submit(make_request(model, at, sampling=SAMPLING))
            await asyncio.sleep(0.005 * at)
        return [await answer.collect() for answer in answers]

    model = tiny.make_model("qwen2")
    expected = model.generate(
        make_prompts(), max_new_tokens=20, sampling=SAMPLING, seeds=range(len(PROMPT_LENGTHS))
    )
    for whole, one in zip(run_scenario(scenario, batch), expected, strict=True):
        assert (whole.text, whole.tokens, whole.finish_reason) == (
            one.text,
            one.ids.tolist(),
            one.finish_reason,
        )


def test_chunks_come_while_it_is_written_and_none_holds_half_a_character() -> None:
    async def scenario(found: Scheduler, model: Model) -> tuple[list[StreamChunk], str]:
        (answer,) = found.submit(make_request(model, 0, limit=60, sampling=SAMPLING, stop=("e",)))
        chunks = [chunk async for chunk in answer]
        (again,) = found.submit(make_request(model, 0, limit=60, sampling=SAMPLING, stop=("e",)))
        return chunks, (await again.collect()).text

    chunks, text = run_scenario(scenario)
    assert len(chunks) > 2
    assert "".join(chunk.text for chunk in chunks) == text
    assert "e" not in text
    assert [chunk.finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)


def test_a_closed_stream_frees_its_slot() -> None:
    """With one slot, the second is answered though the first would take thousands of tokens."""

    async def scenario(found: Scheduler, model: Model) -> int:
        (long,) = found.submit(make_request(model, 0, limit=100_000))
        chunks = aiter(long)
        await anext(chunks)
        (short,) = found.submit(make_request(model, 1, limit=3))
        long.close()
        whole = await asyncio.wait_for(short.collect(), 30)
        await chunks.aclose()  # type: ignore[attr-defined]  # it is a generator
        return len(whole.tokens)

    assert run_scenario(scenario, batch=1, endless=True) == 3


def test_a_request_closed_while_waiting_is_never_prefilled() -> None:
    async def scenario(found: Scheduler, model: Model) -> tuple[int, int]:
        (long,) = found.submit(make_request(model, 0, limit=60))
        (waiting,) = found.submit(make_request(model, 1))
        waiting.close()
        await long.collect()
        (last,) = found.submit(make_request(model, 2, limit=1))
        await last.collect()
        return found.stats.generated_tokens, found.stats.waiting

    assert run_scenario(scenario, batch=1, endless=True) == (61, 0)


def test_a_full_queue_takes_all_of_a_request_or_nothing() -> None:
    async def scenario(found: Scheduler, model: Model) -> int:
        (long,) = found.submit(make_request(model, 0, limit=100_000))
        chunks = aiter(long)
        await anext(chunks)
        found.submit(*(make_request(model, at) for at in range(3)))
        with pytest.raises(QueueFullError):
            found.submit(make_request(model, 3), make_request(model, 4))
        waiting = found.stats.waiting
        found.submit(make_request(model, 5))
        with pytest.raises(QueueFullError):
            found.submit(make_request(model, 6))
        return waiting

    assert run_scenario(scenario, batch=1, queue=4, endless=True) == 3


def test_other_work_is_done_between_two_tokens() -> None:
    async def scenario(found: Scheduler, model: Model) -> tuple[int, int, int]:
        (long,) = found.submit(make_request(model, 0, limit=100_000))
        chunks = aiter(long)
        await anext(chunks)
        before = found.stats.generated_tokens
        three = await found.run_between_steps(lambda: 3)
        with pytest.raises(ZeroDivisionError):
            await found.run_between_steps(lambda: 1 // 0)
        await asyncio.sleep(0.05)
        return three, before, found.stats.generated_tokens

    three, before, after = run_scenario(scenario, endless=True)
    assert three == 3
    assert after > before


def test_a_defect_breaks_the_answers_it_meets_and_no_later_one() -> None:
    async def scenario(found: Scheduler, model: Model) -> int:
        (fine,) = found.submit(make_request(model, 0, limit=100_000))
        chunks = aiter(fine)
        await anext(chunks)
        (broken,) = found.submit(GenerationRequest("m", to_token_ids([tiny.VOCAB_SIZE + 5]), 3))
        with pytest.raises(GenerationError):
            await broken.collect()
        with pytest.raises(GenerationError):
            await remaining_chunks(chunks)
        (later,) = found.submit(make_request(model, 1, limit=2))
        return len((await later.collect()).tokens)

    assert run_scenario(scenario, endless=True) == 2


def test_what_is_unfinished_breaks_when_it_ends() -> None:
    model = tiny.make_model("qwen2")
    model.template.stop_token_ids = frozenset({-1})
    found = Scheduler([ModelRunner(model.causal, model.template, ["m"])], batch=1, queue=4)
    found.start()

    async def scenario() -> None:
        long, waiting = found.submit(make_request(model, 0, limit=100_000), make_request(model, 1))
        chunks = aiter(long)
        await anext(chunks)
        await asyncio.to_thread(found.shutdown)
        with pytest.raises(GenerationError):
            await remaining_chunks(chunks)
        with pytest.raises(GenerationError):
            await waiting.collect()

    asyncio.run(scenario())


def test_a_client_that_disconnects_before_the_first_token_frees_its_slot() -> None:
    """Events that were never begun close nothing themselves."""

    async def scenario(found: Scheduler, model: Model) -> list[bool]:
        answers = found.submit(make_request(model, 0, limit=100_000))

        async def events() -> AsyncGenerator[dict[str, Any]]:
            async for chunk in answers[0]:
                yield {"text": chunk.text}

        async def receive_disconnect() -> Any:
            return {"type": "http.disconnect"}

        async def send_forever(message: Any) -> None:
            await asyncio.Event().wait()

        await EventStream(events(), answers)(
            {"type": "http", "method": "POST"}, receive_disconnect, send_forever
        )
        return [answer.closed for answer in answers]

    assert run_scenario(scenario, endless=True) == [True]
