"""Routes of the students' page (/tutor): config, sessions, comparisons, votes, ratings."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from functools import partial
from typing import Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from zephyr.errors import ZephyrError
from zephyr.records import Message, content_hash
from zephyr.tutor.answer_stream import AnswerStream, merge_streams
from zephyr.tutor.api_errors import ApiError, error_responses
from zephyr.tutor.class_schema import CompareBody, MarksBody, RatingBody, VoteBody
from zephyr.tutor.classroom import Classroom
from zephyr.tutor.equation_marks import mark_equations
from zephyr.tutor.openai_responses import OPENAI_FINISH_REASONS
from zephyr.tutor.openai_routes import find_model, with_system_message
from zephyr.tutor.pair_sampler import PairSampler
from zephyr.tutor.practice_routes import practice_routes
from zephyr.tutor.preferences import are_identical
from zephyr.tutor.settings import TutorSettings
from zephyr.tutor.sse import STREAM_RESPONSES, EventStream

CLEANUP_INTERVAL_SECONDS = 24 * 60 * 60.0

SessionPath = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")]


def class_routes(classroom: Classroom) -> APIRouter:
    """The router of all routes under /tutor."""

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncGenerator[None]:
        cleanup_task = asyncio.create_task(_delete_expired_daily(classroom))
        yield
        cleanup_task.cancel()

    router = APIRouter(prefix="/tutor", tags=["Class"], lifespan=lifespan)
    practice_router, delete_ladders = practice_routes(classroom)
    router.include_router(practice_router)

    @router.get("/config", summary="What the page offers", responses=error_responses())
    async def config(request: Request) -> dict[str, Any]:
        public_config: dict[str, Any] = {
            "course": classroom.settings.course,
            "needs_password": not request.state.admitted,
        }
        return (
            public_config | _public_settings(classroom) if request.state.admitted else public_config
        )

    @router.post("/session", summary="A new session", responses=error_responses(503))
    async def begin() -> dict[str, str]:
        return {"session": await classroom.run_in_thread(classroom.events.new_session)}

    @router.delete(
        "/session/{session}",
        summary="Removes all that a session left",
        responses=error_responses(503),
    )
    async def remove(session: SessionPath) -> dict[str, int]:
        await classroom.check_session(session)
        delete_ladders(session)
        return {"deleted": await classroom.run_in_thread(partial(classroom.events.delete, session))}

    _compare_routes(router, classroom)

    @router.post("/rating", summary="Whether an answer helped", responses=error_responses(404, 503))
    async def rate(body: RatingBody) -> dict[str, bool]:
        model = find_model(classroom.serving, body.model).name
        for param in ("question", "answer"):
            classroom.check_length(getattr(body, param), param)
        texts = classroom.loggable_texts(question=body.question, answer=body.answer)
        add_rating = partial(
            classroom.events.add_rating,
            {"rating": body.rating, **texts},
            session=body.session,
            model=model,
            key=content_hash(body.session, model, body.question, body.answer),
        )
        await classroom.run_in_thread(add_rating)
        return {"stored": True}

    @router.post("/marks", summary="Equations that don't hold", responses=error_responses())
    async def mark(body: MarksBody) -> dict[str, Any]:
        classroom.check_length(body.text, "text")
        return {"marks": await anyio.to_thread.run_sync(mark_equations, body.text)}

    return router


async def _delete_expired_daily(classroom: Classroom) -> None:
    """Background task: deletes expired events once a day (at start, `serve` does)."""
    while True:
        await asyncio.sleep(CLEANUP_INTERVAL_SECONDS)
        with suppress(ApiError):  # `run_in_thread` has logged it
            await classroom.run_in_thread(
                partial(classroom.events.delete_older_than, classroom.settings.logs.keep_days)
            )


def _compare_routes(router: APIRouter, classroom: Classroom) -> None:
    """Adds the routes of pairwise comparison: /compare and /vote."""
    names = list(classroom.serving.models)
    past_pairs = classroom.events.compared_models()
    pair_sampler = PairSampler(names, past_pairs) if len(names) > 1 else None

    @router.post(
        "/compare",
        summary="Two answers without names",
        responses=error_responses(503) | STREAM_RESPONSES,
        response_class=Response,
    )
    async def compare(body: CompareBody) -> Response:
        classroom.check_way("compare")
        await classroom.check_session(body.session)
        for at, message in enumerate(body.messages):
            classroom.check_length(message.content, f"messages[{at}].content")
        messages = with_system_message(classroom.settings, body.conversation)
        assert pair_sampler is not None, "where there is one model, comparing is no way"
        models = pair_sampler.sample()
        try:
            requests = [
                await classroom.make_request(
                    classroom.serving.models[name], messages, client=body.session
                )
                for name in models
            ]
        except ZephyrError:  # its message would name the model
            text = (
                "one of the two models can't answer this: it is too long, or has a system message"
            )
            raise ApiError(400, text, code="not_answerable", param="messages") from None
        answers = classroom.serving.scheduler.submit(*requests)
        return EventStream(_stream_comparison(classroom, body, messages, models, answers), answers)

    @router.post(
        "/vote", summary="Which answer is better", responses=error_responses(404, 409, 503)
    )
    async def vote(body: VoteBody) -> dict[str, Any]:
        await classroom.check_session(body.session)
        comparison = await classroom.run_in_thread(
            partial(classroom.events.find_comparison, body.comparison)
        )
        if comparison is None or comparison.session != body.session:
            text = "there is no such comparison in this session"
            raise ApiError(404, text, code="no_such_comparison", param="comparison")
        if are_identical(comparison.body["answers"]):
            text = "both answers are the same: there is nothing to choose"
            raise ApiError(409, text, code="identical_answers", param="comparison")
        await classroom.store_event(
            "vote",
            {"overall": body.overall, "criteria": body.criteria.model_dump(exclude_none=True)},
            session=body.session,
            key=body.comparison,
            conflict=ApiError(409, "this comparison has its vote", code="already_voted"),
        )
        return {"stored": True, "models": comparison.body["models"]}


async def _stream_comparison(
    classroom: Classroom,
    body: CompareBody,
    messages: Sequence[Message],
    models: Sequence[str],
    answers: Sequence[AnswerStream],
) -> AsyncGenerator[dict[str, Any]]:
    """Streams both answers as events (SSE), then stores the comparison and sends its id.

    Identical answers are no matter of preference: the last event says so, and names the models.
    """
    texts, finish_reasons = {"A": "", "B": ""}, {"A": "", "B": ""}
    async with aclosing(merge_streams(answers)) as chunks:
        async for at, chunk in chunks:
            side = "AB"[at]
            if chunk.text:
                texts[side] += chunk.text
                yield {"side": side, "text": chunk.text}
            if chunk.finish_reason is not None:
                finish_reasons[side] = OPENAI_FINISH_REASONS[chunk.finish_reason]
                yield {"side": side, "ended": finish_reasons[side]}
    key = secrets.token_hex(16)
    event_body = {
        "messages": [[turn.role, turn.content] for turn in body.conversation],
        "system": classroom.settings.system,
        "models": dict(zip("AB", models, strict=True)),
        "answers": texts,
        "ended": finish_reasons,
    }
    await classroom.store_event("comparison", event_body, session=body.session, key=key)
    if are_identical(texts):
        yield {"comparison": key, "identical": True, "models": event_body["models"]}
    else:
        yield {"comparison": key}


def _public_settings(classroom: Classroom) -> dict[str, Any]:
    """The settings and models that the page shows, as JSON-ready values."""
    settings = classroom.settings
    return {
        "models": [
            {"id": name, "about": served.description}
            for name, served in classroom.serving.models.items()
        ],
        "ways": classroom.ways,
        "hints": [step.name for step in settings.hints],
        "limits": {"message": settings.limits.message, "tokens": settings.limits.tokens},
        "kept": retention_notice(settings),
        "system": settings.system is not None,
    }


def retention_notice(settings: TutorSettings) -> str:
    """The data retention notice for students: what is stored, and for how long."""
    what = "What you compare, your votes, ratings and quiz answers"
    if settings.logs.messages:
        what = "What you write, the answers, your votes, ratings and quiz answers"
    rest = "" if settings.logs.messages else "; your other questions are only counted"
    days = f"{settings.logs.keep_days} days"
    return f"{what} are kept for {days} under a random number, without your name{rest}."
