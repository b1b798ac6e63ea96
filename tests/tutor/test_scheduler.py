"""Continuous batching: what others ask changes no answer, and who leaves frees a place."""

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
from zephyr.tutor.scheduler import (
    GenerationError,
    GenerationRequest,
    ModelRunner,
    QueueFullError,
    Scheduler,
    StreamChunk,
)
from zephyr.tutor.sse import EventStream

LENGTHS = (9, 3, 40, 1, 30, 12, 2, 5)
WARM = SamplingParams(temperature=1.1, top_p=0.95)


def prompts() -> list[TokenIds]:
    rng = np.random.default_rng(0)
    return [to_token_ids(rng.integers(1, tiny.VOCABULARY, n)) for n in LENGTHS]


def asked(model: Model, at: int, **how: Any) -> GenerationRequest:
    return GenerationRequest("m", prompts()[at], how.pop("limit", 20), seed=at, **how)


async def rest(pieces: AsyncIterator[StreamChunk]) -> list[StreamChunk]:
    return [piece async for piece in pieces]


Talk = Callable[[Scheduler, Model], Coroutine[Any, Any, Any]]


def talk(what: Talk, batch: int = 4, queue: int = 32, endless: bool = False) -> Any:
    """What comes of a talk with a scheduler of one tiny model."""
    model = tiny.make_model("qwen2")
    if endless:
        model.template.stop_token_ids = frozenset({-1})
    found = Scheduler([ModelRunner(model.causal, model.template, ["m"])], batch=batch, queue=queue)
    found.start()
    try:
        return asyncio.run(what(found, model))
    finally:
        found.shutdown()


@pytest.mark.parametrize("batch", [1, 3, 8])
@pytest.mark.parametrize("part", [4, 512])
def test_each_gets_what_it_would_get_alone(
    batch: int, part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "PREFILL_CHUNK_TOKENS", part)

    async def what(found: Scheduler, model: Model) -> list[Any]:
        answers = []
        for at in range(len(LENGTHS)):
            answers += found.submit(asked(model, at, sampling=WARM))
            await asyncio.sleep(0.005 * at)
        return [await answer.collect() for answer in answers]

    model = tiny.make_model("qwen2")
    expected = model.generate(
        prompts(), max_new_tokens=20, sampling=WARM, seeds=range(len(LENGTHS))
    )
    for whole, one in zip(talk(what, batch), expected, strict=True):
        assert (whole.text, whole.tokens, whole.finish_reason) == (
            one.text,
            one.ids.tolist(),
            one.finish_reason,
        )


def test_pieces_come_while_it_is_written_and_none_holds_half_a_character() -> None:
    async def what(found: Scheduler, model: Model) -> tuple[list[StreamChunk], str]:
        (answer,) = found.submit(asked(model, 0, limit=60, sampling=WARM, stop=("e",)))
        pieces = [piece async for piece in answer]
        (again,) = found.submit(asked(model, 0, limit=60, sampling=WARM, stop=("e",)))
        return pieces, (await again.collect()).text

    pieces, text = talk(what)
    assert len(pieces) > 2
    assert "".join(piece.text for piece in pieces) == text
    assert "e" not in text
    assert [piece.finish_reason for piece in pieces[:-1]] == [None] * (len(pieces) - 1)


def test_who_closes_gives_the_place_free() -> None:
    """With one place, the second is answered though the first would take thousands of tokens."""

    async def what(found: Scheduler, model: Model) -> int:
        (long,) = found.submit(asked(model, 0, limit=100_000))
        pieces = aiter(long)
        await anext(pieces)
        (short,) = found.submit(asked(model, 1, limit=3))
        long.close()
        whole = await asyncio.wait_for(short.collect(), 30)
        await pieces.aclose()  # type: ignore[attr-defined]  # it is a generator
        return len(whole.tokens)

    assert talk(what, batch=1, endless=True) == 3


def test_who_closes_while_waiting_is_never_read() -> None:
    async def what(found: Scheduler, model: Model) -> tuple[int, int]:
        (long,) = found.submit(asked(model, 0, limit=60))
        (waiting,) = found.submit(asked(model, 1))
        waiting.close()
        await long.collect()
        (last,) = found.submit(asked(model, 2, limit=1))
        await last.collect()
        return found.stats.generated_tokens, found.stats.waiting

    assert talk(what, batch=1, endless=True) == (61, 0)


def test_a_full_queue_takes_all_of_a_request_or_nothing() -> None:
    async def what(found: Scheduler, model: Model) -> int:
        (long,) = found.submit(asked(model, 0, limit=100_000))
        pieces = aiter(long)
        await anext(pieces)
        found.submit(*(asked(model, at) for at in range(3)))
        with pytest.raises(QueueFullError):
            found.submit(asked(model, 3), asked(model, 4))
        waiting = found.stats.waiting
        found.submit(asked(model, 5))
        with pytest.raises(QueueFullError):
            found.submit(asked(model, 6))
        return waiting

    assert talk(what, batch=1, queue=4, endless=True) == 3


def test_other_work_is_done_between_two_tokens() -> None:
    async def what(found: Scheduler, model: Model) -> tuple[int, int, int]:
        (long,) = found.submit(asked(model, 0, limit=100_000))
        pieces = aiter(long)
        await anext(pieces)
        before = found.stats.generated_tokens
        three = await found.run_between_steps(lambda: 3)
        with pytest.raises(ZeroDivisionError):
            await found.run_between_steps(lambda: 1 // 0)
        await asyncio.sleep(0.05)
        return three, before, found.stats.generated_tokens

    three, before, after = talk(what, endless=True)
    assert three == 3
    assert after > before


def test_a_defect_breaks_the_answers_it_meets_and_no_later_one() -> None:
    async def what(found: Scheduler, model: Model) -> int:
        (fine,) = found.submit(asked(model, 0, limit=100_000))
        pieces = aiter(fine)
        await anext(pieces)
        (broken,) = found.submit(GenerationRequest("m", to_token_ids([tiny.VOCABULARY + 5]), 3))
        with pytest.raises(GenerationError):
            await broken.collect()
        with pytest.raises(GenerationError):
            await rest(pieces)
        (later,) = found.submit(asked(model, 1, limit=2))
        return len((await later.collect()).tokens)

    assert talk(what, endless=True) == 2


def test_what_is_unfinished_breaks_when_it_ends() -> None:
    model = tiny.make_model("qwen2")
    model.template.stop_token_ids = frozenset({-1})
    found = Scheduler([ModelRunner(model.causal, model.template, ["m"])], batch=1, queue=4)
    found.start()

    async def what() -> None:
        long, waiting = found.submit(asked(model, 0, limit=100_000), asked(model, 1))
        pieces = aiter(long)
        await anext(pieces)
        await asyncio.to_thread(found.shutdown)
        with pytest.raises(GenerationError):
            await rest(pieces)
        with pytest.raises(GenerationError):
            await waiting.collect()

    asyncio.run(what())


def test_who_leaves_before_the_first_word_gives_the_place_free() -> None:
    """Events that were never begun close nothing themselves."""

    async def what(found: Scheduler, model: Model) -> list[bool]:
        answers = found.submit(asked(model, 0, limit=100_000))

        async def events() -> AsyncGenerator[dict[str, Any]]:
            async for piece in answers[0]:
                yield {"text": piece.text}

        async def gone() -> Any:
            return {"type": "http.disconnect"}

        async def stuck(message: Any) -> None:
            await asyncio.Event().wait()

        await EventStream(events(), answers)({"type": "http", "method": "POST"}, gone, stuck)
        return [answer.closed for answer in answers]

    assert talk(what, endless=True) == [True]
