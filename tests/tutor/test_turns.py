"""Clients take turns: who asks much makes nobody else wait, counted in steps of the scheduler."""

import asyncio
from collections.abc import Callable

import pytest

from tests import tiny
from zephyr.model.example import to_token_ids
from zephyr.model.model import Model
from zephyr.tutor.answer_stream import AnswerStream, GenerationRequest
from zephyr.tutor.scheduler import PREFILL_CHUNK_TOKENS, ModelRunner, QueueFullError, Scheduler

BATCH, QUEUE = 8, 64
LONG = 100_000


class Steps:
    """A scheduler that is stepped by hand."""

    def __init__(self, model: Model, batch: int = BATCH, queue: int = QUEUE) -> None:
        self.runner = ModelRunner(model.causal, model.template, ["m"])
        self.scheduler = Scheduler([self.runner], batch=batch, queue=queue)

    def submit(
        self, client: str, n: int = 1, *, limit: int = LONG, length: int = 3
    ) -> list[AnswerStream]:
        prompt = to_token_ids([5] * length)
        requests = [
            GenerationRequest("m", prompt, limit, seed=at, client=client) for at in range(n)
        ]
        return self.scheduler.submit(*requests)

    def step(self) -> None:
        self.scheduler._wait_for_work()
        self.scheduler._step(self.runner)

    async def until(self, condition: Callable[[], bool]) -> int:
        """The number of steps until a condition holds."""
        steps = 0
        while not condition():
            self.step()
            await asyncio.sleep(0)  # chunks are delivered by the event loop
            steps += 1
            assert steps < 500
        return steps

    def clients(self) -> list[str]:
        """Whose answers are being written."""
        return [slot.client for slot in self.runner.slots]


@pytest.fixture
def endless_model() -> Model:
    model = tiny.make_model("qwen2")
    model.template.stop_token_ids = frozenset({-1})
    return model


def finished(answers: list[AnswerStream]) -> bool:
    """Whether each answer has its last chunk."""
    found = [list(answer._chunks._queue) for answer in answers]  # type: ignore[attr-defined]
    return all(chunks and chunks[-1].finish_reason is not None for chunks in found)


def test_one_with_forty_requests_of_eight_makes_no_other_wait(endless_model: Model) -> None:
    async def scenario() -> int:
        steps = Steps(endless_model)
        refused = 0
        for _ in range(40):
            try:
                steps.submit("many", 8, limit=120)
            except QueueFullError:
                refused += 1
        assert refused == 40 - QUEUE // 8
        await steps.until(lambda: len(steps.clients()) == BATCH)
        steps.step()
        others = [steps.submit(f"student {at}", limit=10)[0] for at in range(4)]
        waited = await steps.until(lambda: finished(others))
        assert steps.clients().count("many") == BATCH
        return waited

    async def alone() -> int:
        steps = Steps(endless_model)
        answers = [steps.submit(f"student {at}", limit=10)[0] for at in range(4)]
        return await steps.until(lambda: finished(answers))

    assert asyncio.run(scenario()) <= asyncio.run(alone()) + 1


def test_free_rows_go_to_who_has_the_fewest(endless_model: Model) -> None:
    async def scenario() -> None:
        steps = Steps(endless_model)
        steps.submit("a", 8)
        steps.submit("b", 2)
        steps.submit("c", 8)
        steps.step()
        assert sorted(steps.clients()) == ["a"] * 3 + ["b"] * 2 + ["c"] * 3

    asyncio.run(scenario())


def test_a_client_alone_has_the_whole_batch(endless_model: Model) -> None:
    async def scenario() -> None:
        steps = Steps(endless_model)
        steps.submit("a", 20)
        steps.step()
        assert steps.clients() == ["a"] * BATCH
        for _ in range(3):
            steps.step()
        assert steps.clients() == ["a"] * BATCH

    asyncio.run(scenario())


def test_completions_of_one_request_wait_for_the_clients_other_requests(
    endless_model: Model,
) -> None:
    async def scenario() -> None:
        steps = Steps(endless_model, batch=2)
        first = steps.submit("a", 4)
        second = steps.submit("a", 1)
        steps.step()
        running = {slot.answer for slot in steps.runner.slots}
        assert running == {first[0], second[0]}

    asyncio.run(scenario())


def test_newcomers_enter_a_full_queue_up_to_half_as_many(endless_model: Model) -> None:
    async def scenario() -> None:
        steps = Steps(endless_model, queue=4)
        steps.submit("many", 4)
        for client in ("many", "many"):
            with pytest.raises(QueueFullError):
                steps.submit(client)
        steps.submit("a")
        with pytest.raises(QueueFullError):
            steps.submit("a")
        steps.submit("b")
        with pytest.raises(QueueFullError):
            steps.submit("c")

    asyncio.run(scenario())


def test_long_prompts_of_one_delay_the_next_prefill_by_few_chunks(endless_model: Model) -> None:
    async def scenario() -> int:
        steps = Steps(endless_model)
        steps.submit("many", 8, length=2000)
        steps.step()
        (other,) = steps.submit("student", limit=2)
        return await steps.until(lambda: finished([other]))

    assert asyncio.run(scenario()) <= 2000 // PREFILL_CHUNK_TOKENS + 3


def test_a_prefill_that_nobody_waits_for_is_given_up(endless_model: Model) -> None:
    async def scenario() -> None:
        steps = Steps(endless_model)
        (left,) = steps.submit("a", length=2000)
        steps.step()
        left.close()
        (other,) = steps.submit("b", limit=1)
        assert await steps.until(lambda: finished([other])) == 1

    asyncio.run(scenario())
