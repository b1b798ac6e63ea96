"""The routes by which a student practises: the quiz, its explanations, and ladders of hints."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from functools import partial
from typing import Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, Path, Query
from starlette.responses import Response

from zephyr.data.course import quiz_text
from zephyr.data.readers.choice import LETTERS
from zephyr.errors import ZephyrError
from zephyr.records import Choice, Message
from zephyr.tutor.class_schema import AnswerBody, ExplainBody, LadderBody, SessionBody
from zephyr.tutor.classroom import Classroom, Spoken
from zephyr.tutor.hints import Ladder, Ladders
from zephyr.tutor.marks import marks
from zephyr.tutor.openai_routes import find
from zephyr.tutor.quizzes import probabilities
from zephyr.tutor.refusal import Refusal, refused
from zephyr.tutor.scheduler import Answer
from zephyr.tutor.sse import STREAMED, EventStream

EXPLAIN = "Why is that the right answer? Explain it in a few sentences."

SessionQuery = Annotated[str, Query(pattern=r"^[0-9a-f]{32}$")]
LadderPath = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")]


def practice_routes(room: Classroom) -> tuple[APIRouter, Callable[[str], None]]:
    """The routes, and what forgets the ladders of a session."""
    router = APIRouter()
    _quiz_routes(router, room)
    ladders = Ladders()
    _ladder_routes(router, room, ladders)
    return router, ladders.forget


def _quiz_routes(router: APIRouter, room: Classroom) -> None:
    @router.get("/quiz", summary="The next question of the quiz", responses=refused(404, 503))
    async def ask(session: SessionQuery) -> dict[str, Any]:
        room.check_way("quiz")
        await room.check_session(session)
        answered = await room.kept(partial(room.events.answered, session))
        quiz = room.quizzes.next(session, answered)
        if quiz is None:
            raise Refusal(404, "all questions have been answered", code="no_more_quizzes")
        return {
            "quiz": quiz.id,
            "subject": quiz.subject,
            "question": quiz.text,
            "options": list(quiz.choices),
            "number": room.quizzes.number(answered),
            "of": len(room.quizzes),
        }

    @router.post("/quiz", summary="Answers a question", responses=refused(404, 409, 503))
    async def answer(body: AnswerBody) -> dict[str, Any]:
        room.check_way("quiz")
        await room.check_session(body.session)
        quiz = _quiz(room, body.quiz)
        if body.chosen >= len(quiz.choices):
            text = f"the question has {len(quiz.choices)} options, counted from 0"
            raise Refusal(400, text, param="chosen")
        served = find(room.serving, body.model)
        twice = Refusal(409, "this question has been answered", code="already_answered")
        if body.quiz in await room.kept(partial(room.events.answered, body.session)):
            raise twice
        shares = await probabilities(served, quiz)
        chosen = shares.index(max(shares))
        await room.note(
            "quiz",
            {
                "chosen": body.chosen,
                "answer": quiz.answer,
                "model_chosen": chosen,
                "probabilities": shares,
            },
            session=body.session,
            model=served.name,
            key=quiz.id,
            twice=twice,
        )
        return {
            "right": body.chosen == quiz.answer,
            "answer": quiz.answer,
            "model": {"id": served.name, "chosen": chosen, "probabilities": shares},
        }

    @router.post(
        "/explain",
        summary="Why an answer is right",
        responses=refused(404, 409, 503) | STREAMED,
        response_class=Response,
    )
    async def explain(body: ExplainBody) -> Response:
        room.check_way("quiz")
        await room.check_session(body.session)
        quiz = _quiz(room, body.quiz)
        served = find(room.serving, body.model)
        if body.quiz not in await room.kept(partial(room.events.answered, body.session)):
            raise Refusal(409, "answer the question first", code="not_answered")
        messages = room.under_system(_explaining(quiz))
        try:
            asked = room.request(served, messages)
        except ZephyrError:
            text = f"{served.name} reads too little at a time to explain this question"
            raise Refusal(400, text, code="not_answerable", param="model") from None
        (told,) = room.serving.scheduler.submit(asked)
        return EventStream(_explained(room, body, told), [told])


def _quiz(room: Classroom, quiz: str) -> Choice:
    found = room.quizzes.find(quiz)
    if found is None:
        raise Refusal(404, "there is no such question", code="no_such_quiz", param="quiz")
    return found


def _explaining(quiz: Choice) -> list[Message]:
    return [
        Message("user", quiz_text(quiz)),
        Message("assistant", LETTERS[quiz.answer]),
        Message("user", EXPLAIN),
    ]


async def _explained(
    room: Classroom, body: ExplainBody, answer: Answer
) -> AsyncGenerator[dict[str, Any]]:
    spoken = Spoken(answer)
    async with aclosing(spoken.events()) as events:
        async for event in events:
            yield event
    noted = {"way": "explain", "ended": spoken.ended, **room.logged(answer=spoken.text)}
    await room.note("question", noted, session=body.session, model=body.model, key=body.quiz)
    yield {"ended": spoken.ended}
    yield {"marks": await anyio.to_thread.run_sync(marks, spoken.text)}


def _ladder_routes(router: APIRouter, room: Classroom, ladders: Ladders) -> None:
    @router.post(
        "/ladder",
        summary="The first hint to a question",
        responses=refused(404, 503) | STREAMED,
        response_class=Response,
    )
    async def begin(body: LadderBody) -> Response:
        room.check_way("hint")
        await room.check_session(body.session)
        room.check_length(body.question, "question")
        ladder = Ladder(body.session, find(room.serving, body.model).name, body.question)
        answer = _next_step(room, ladder)
        ladders.keep(ladder)
        return EventStream(_climbed(room, ladder, answer), [answer])

    @router.post(
        "/ladder/{ladder}",
        summary="The next hint",
        responses=refused(404, 409, 503) | STREAMED,
        response_class=Response,
    )
    async def climb(ladder: LadderPath, body: SessionBody) -> Response:
        room.check_way("hint")
        await room.check_session(body.session)
        found = ladders.find(ladder, body.session)
        if found is None:
            raise Refusal(404, "this ladder is not known; begin again", code="no_such_ladder")
        if found.step >= len(room.tutor.hints):
            raise Refusal(409, "that was the last hint", code="ladder_done")
        if found.climbing:
            raise _climbing()
        answer = _next_step(room, found)
        return EventStream(_climbed(room, found, answer), [answer])


def _climbing() -> Refusal:
    return Refusal(409, "the last hint is still being written", code="climbing")


def _next_step(room: Classroom, ladder: Ladder) -> Answer:
    served = room.serving.models[ladder.model]

    def fits(messages: Sequence[Message]) -> bool:
        """Whether half of what the model can read is left for the answer."""
        prompt = served.template.prompt(room.under_system(messages))
        return len(prompt) <= served.context // 2

    messages = room.under_system(ladder.messages(room.tutor.hints, fits))
    (answer,) = room.serving.scheduler.submit(room.request(served, messages))
    return answer


async def _climbed(
    room: Classroom, ladder: Ladder, answer: Answer
) -> AsyncGenerator[dict[str, Any]]:
    """A step as it is written; it counts once it is complete, so that a broken one is repeated."""
    steps = room.tutor.hints
    if ladder.climbing:
        answer.close()
        raise _climbing()
    ladder.climbing = True
    step, spoken = ladder.step, Spoken(answer)
    try:
        yield {
            "ladder": ladder.id,
            "step": step,
            "steps": len(steps),
            "name": steps[step].name,
        }
        async with aclosing(spoken.events()) as events:
            async for event in events:
                yield event
        noted = {"step": step, "name": steps[step].name, "ended": spoken.ended}
        texts = room.logged(question=ladder.question, answer=spoken.text)
        await room.note(
            "ladder",
            noted | texts,
            session=ladder.session,
            model=ladder.model,
            key=ladder.id,
        )
        ladder.hints.append(spoken.text)
        yield {"ended": spoken.ended}
        yield {"marks": await anyio.to_thread.run_sync(marks, spoken.text)}
    finally:
        ladder.climbing = False
        answer.close()
