"""Practice routes: the quiz, explanations of its answers, and ladders of hints."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from functools import partial
from typing import Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, Path, Query
from starlette.responses import Response

from zephyr.data.quiz_format import format_quiz
from zephyr.data.readers.answer_key import LETTERS
from zephyr.errors import ZephyrError
from zephyr.records import Choice, Message
from zephyr.tutor.answer_stream import AnswerStream
from zephyr.tutor.api_errors import ApiError, error_responses
from zephyr.tutor.class_schema import AnswerBody, ExplainBody, LadderBody, SessionBody
from zephyr.tutor.classroom import AnswerCollector, Classroom
from zephyr.tutor.equation_marks import mark_equations
from zephyr.tutor.hints import Ladder, LadderStore
from zephyr.tutor.openai_routes import find_model
from zephyr.tutor.quizzes import option_probabilities
from zephyr.tutor.serving import run_tokenizer
from zephyr.tutor.sse import STREAM_RESPONSES, EventStream

EXPLAIN_PROMPT = "Why is that the right answer? Explain it in a few sentences."

SessionQuery = Annotated[str, Query(pattern=r"^[0-9a-f]{32}$")]
LadderPath = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")]


def practice_routes(classroom: Classroom) -> tuple[APIRouter, Callable[[str], None]]:
    """The router, and the function that deletes a session's ladders."""
    router = APIRouter()
    _quiz_routes(router, classroom)
    ladders = LadderStore()
    _ladder_routes(router, classroom, ladders)
    return router, ladders.delete_session


def _quiz_routes(router: APIRouter, classroom: Classroom) -> None:
    @router.get(
        "/quiz", summary="The next question of the quiz", responses=error_responses(404, 503)
    )
    async def ask(session: SessionQuery) -> dict[str, Any]:
        classroom.check_way("quiz")
        await classroom.check_session(session)
        quiz_answers = await classroom.run_in_thread(
            partial(classroom.events.quiz_answers, session)
        )
        quiz = classroom.quizzes.next(session, quiz_answers)
        if quiz is None:
            raise ApiError(404, "all questions have been answered", code="no_more_quizzes")
        return {
            "quiz": quiz.id,
            "subject": quiz.subject,
            "question": quiz.text,
            "options": list(quiz.choices),
            "number": classroom.quizzes.next_number(quiz_answers),
            "of": len(classroom.quizzes),
        }

    @router.post("/quiz", summary="Answers a question", responses=error_responses(404, 409, 503))
    async def answer(body: AnswerBody) -> dict[str, Any]:
        classroom.check_way("quiz")
        await classroom.check_session(body.session)
        quiz = _find_question(classroom, body.quiz)
        if body.chosen >= len(quiz.choices):
            text = f"the question has {len(quiz.choices)} options, counted from 0"
            raise ApiError(400, text, param="chosen")
        served = find_model(classroom.serving, body.model)
        conflict = ApiError(409, "this question has been answered", code="already_answered")
        if body.quiz in await classroom.run_in_thread(
            partial(classroom.events.quiz_answers, body.session)
        ):
            raise conflict
        option_probs = await option_probabilities(served, quiz)
        model_choice = option_probs.index(max(option_probs))
        await classroom.store_event(
            "quiz",
            {
                "chosen": body.chosen,
                "answer": quiz.answer,
                "model_chosen": model_choice,
                "probabilities": option_probs,
            },
            session=body.session,
            model=served.name,
            key=quiz.id,
            conflict=conflict,
        )
        return {
            "right": body.chosen == quiz.answer,
            "answer": quiz.answer,
            "model": {"id": served.name, "chosen": model_choice, "probabilities": option_probs},
        }

    @router.post(
        "/explain",
        summary="Why an answer is right",
        responses=error_responses(404, 409, 503) | STREAM_RESPONSES,
        response_class=Response,
    )
    async def explain(body: ExplainBody) -> Response:
        classroom.check_way("quiz")
        await classroom.check_session(body.session)
        quiz = _find_question(classroom, body.quiz)
        served = find_model(classroom.serving, body.model)
        if body.quiz not in await classroom.run_in_thread(
            partial(classroom.events.quiz_answers, body.session)
        ):
            raise ApiError(409, "answer the question first", code="not_answered")
        messages = classroom.add_system_message(_explanation_messages(quiz))
        try:
            generation_request = await classroom.make_request(served, messages, client=body.session)
        except ZephyrError:
            text = f"{served.name} reads too little at a time to explain this question"
            raise ApiError(400, text, code="not_answerable", param="model") from None
        (explanation,) = classroom.serving.scheduler.submit(generation_request)
        return EventStream(_stream_explanation(classroom, body, explanation), [explanation])


def _find_question(classroom: Classroom, quiz_id: str) -> Choice:
    found = classroom.quizzes.find(quiz_id)
    if found is None:
        raise ApiError(404, "there is no such question", code="no_such_quiz", param="quiz")
    return found


def _explanation_messages(quiz: Choice) -> list[Message]:
    """The conversation that requests an explanation of the right answer to a quiz question."""
    return [
        Message("user", format_quiz(quiz)),
        Message("assistant", f"{LETTERS[quiz.answer]}. {quiz.choices[quiz.answer]}"),
        Message("user", EXPLAIN_PROMPT),
    ]


async def _stream_explanation(
    classroom: Classroom, body: ExplainBody, answer: AnswerStream
) -> AsyncGenerator[dict[str, Any]]:
    """Streams an explanation (SSE), stores it as an event, then marks its wrong equations."""
    collector = AnswerCollector(answer)
    async with aclosing(collector.events()) as events:
        async for event in events:
            yield event
    event_body = {
        "way": "explain",
        "ended": collector.finish_reason,
        **classroom.loggable_texts(answer=collector.text),
    }
    await classroom.store_event(
        "question", event_body, session=body.session, model=body.model, key=body.quiz
    )
    yield {"ended": collector.finish_reason}
    yield {"marks": await anyio.to_thread.run_sync(mark_equations, collector.text)}


def _ladder_routes(router: APIRouter, classroom: Classroom, ladders: LadderStore) -> None:
    @router.post(
        "/ladder",
        summary="The first hint to a question",
        responses=error_responses(404, 503) | STREAM_RESPONSES,
        response_class=Response,
    )
    async def begin(body: LadderBody) -> Response:
        classroom.check_way("hint")
        await classroom.check_session(body.session)
        classroom.check_length(body.question, "question")
        ladder = Ladder(body.session, find_model(classroom.serving, body.model).name, body.question)
        answer = await _submit_next_hint(classroom, ladder)
        ladders.add(ladder)
        return EventStream(_stream_hint(classroom, ladder, answer), [answer])

    @router.post(
        "/ladder/{ladder}",
        summary="The next hint",
        responses=error_responses(404, 409, 503) | STREAM_RESPONSES,
        response_class=Response,
    )
    async def climb(ladder: LadderPath, body: SessionBody) -> Response:
        classroom.check_way("hint")
        await classroom.check_session(body.session)
        found = ladders.find(ladder, body.session)
        if found is None:
            raise ApiError(404, "this ladder is not known; begin again", code="no_such_ladder")
        if found.step >= len(classroom.settings.hints):
            raise ApiError(409, "that was the last hint", code="ladder_done")
        if found.is_in_progress:
            raise _hint_in_progress()
        answer = await _submit_next_hint(classroom, found)
        return EventStream(_stream_hint(classroom, found, answer), [answer])


def _hint_in_progress() -> ApiError:
    """The 409 error while the ladder's last hint is still being generated."""
    return ApiError(409, "the last hint is still being written", code="climbing")


async def _submit_next_hint(classroom: Classroom, ladder: Ladder) -> AnswerStream:
    """Submits the request for a ladder's next hint; its prompt has at most half the context."""
    served = classroom.serving.models[ladder.model]

    def fits(messages: Sequence[Message]) -> bool:
        """Whether half of the context is left for the answer."""
        prompt = served.template.encode_prompt(classroom.add_system_message(messages))
        return len(prompt) <= served.context_length // 2

    turns = await run_tokenizer(partial(ladder.messages, classroom.settings.hints, fits))
    request = await classroom.make_request(
        served, classroom.add_system_message(turns), client=ladder.session
    )
    (answer,) = classroom.serving.scheduler.submit(request)
    return answer


async def _stream_hint(
    classroom: Classroom, ladder: Ladder, answer: AnswerStream
) -> AsyncGenerator[dict[str, Any]]:
    """Streams the next hint (SSE); the ladder advances once it is complete."""
    steps = classroom.settings.hints
    if ladder.is_in_progress:
        answer.close()
        raise _hint_in_progress()
    ladder.is_in_progress = True
    step, collector = ladder.step, AnswerCollector(answer)
    try:
        yield {
            "ladder": ladder.id,
            "step": step,
            "steps": len(steps),
            "name": steps[step].name,
        }
        async with aclosing(collector.events()) as events:
            async for event in events:
                yield event
        event_body = {"step": step, "name": steps[step].name, "ended": collector.finish_reason}
        texts = classroom.loggable_texts(question=ladder.question, answer=collector.text)
        await classroom.store_event(
            "ladder",
            event_body | texts,
            session=ladder.session,
            model=ladder.model,
            key=ladder.id,
        )
        ladder.hints.append(collector.text)
        yield {"ended": collector.finish_reason}
        yield {"marks": await anyio.to_thread.run_sync(mark_equations, collector.text)}
    finally:
        ladder.is_in_progress = False
        answer.close()
