"""The routes of the class's page: who it is for, sessions, comparisons, votes and ratings."""

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
from zephyr.records import Message
from zephyr.tutor.class_schema import CompareBody, MarksBody, RatingBody, VoteBody
from zephyr.tutor.classroom import Classroom
from zephyr.tutor.marks import marks
from zephyr.tutor.openai_routes import FINISH, find, interleaved, taught
from zephyr.tutor.pairs import Pairs
from zephyr.tutor.practice_routes import practice_routes
from zephyr.tutor.refusal import Refusal, refused
from zephyr.tutor.scheduler import Answer
from zephyr.tutor.settings import Tutor
from zephyr.tutor.sse import STREAMED, EventStream

DAY = 24 * 60 * 60.0

SessionPath = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")]


def class_routes(room: Classroom) -> APIRouter:
    """All routes under /tutor."""

    @asynccontextmanager
    async def forgetting(app: Any) -> AsyncGenerator[None]:
        task = asyncio.create_task(_forget_daily(room))
        yield
        task.cancel()

    router = APIRouter(prefix="/tutor", tags=["Class"], lifespan=forgetting)
    practice, forget = practice_routes(room)
    router.include_router(practice)

    @router.get("/config", summary="What the page offers", responses=refused())
    async def config(request: Request) -> dict[str, Any]:
        told: dict[str, Any] = {
            "course": room.tutor.course,
            "needs_password": not request.state.admitted,
        }
        return told | _config(room) if request.state.admitted else told

    @router.post("/session", summary="A new session", responses=refused(503))
    async def begin() -> dict[str, str]:
        return {"session": await room.kept(room.events.new_session)}

    @router.delete(
        "/session/{session}", summary="Removes all that a session left", responses=refused(503)
    )
    async def remove(session: SessionPath) -> dict[str, int]:
        await room.check_session(session)
        forget(session)
        return {"deleted": await room.kept(partial(room.events.delete, session))}

    _compare_routes(router, room)

    @router.post("/rating", summary="Whether an answer helped", responses=refused(404, 503))
    async def rate(body: RatingBody) -> dict[str, bool]:
        model = find(room.serving, body.model).name
        for param in ("question", "answer"):
            room.check_length(getattr(body, param), param)
        texts = room.logged(question=body.question, answer=body.answer)
        await room.note(
            "rating", {"rating": body.rating, **texts}, session=body.session, model=model
        )
        return {"stored": True}

    @router.post("/marks", summary="Equations that don't hold", responses=refused())
    async def mark(body: MarksBody) -> dict[str, Any]:
        room.check_length(body.text, "text")
        return {"marks": await anyio.to_thread.run_sync(marks, body.text)}

    return router


async def _forget_daily(room: Classroom) -> None:
    """Removes what is too old, as long as the server runs; when it starts, `serve` does."""
    while True:
        await asyncio.sleep(DAY)
        with suppress(Refusal):  # `kept` has told the keeper of the log
            await room.kept(partial(room.events.forget, room.tutor.logs.keep_days))


def _compare_routes(router: APIRouter, room: Classroom) -> None:
    names = list(room.serving.models)
    shown = [event.body["models"].values() for event in room.events.all("comparison")]
    pairs = Pairs(names, shown) if len(names) > 1 else None

    @router.post(
        "/compare",
        summary="Two answers without names",
        responses=refused(503) | STREAMED,
        response_class=Response,
    )
    async def compare(body: CompareBody) -> Response:
        room.check_way("compare")
        await room.check_session(body.session)
        messages = taught(room.tutor, body.conversation)
        assert pairs is not None, "where there is one model, comparing is no way"
        models = pairs.draw()
        try:
            requests = [room.request(room.serving.models[name], messages) for name in models]
        except ZephyrError:  # it would name the model
            text = (
                "one of the two models can't answer this: it is too long, or has a system message"
            )
            raise Refusal(400, text, code="not_answerable", param="messages") from None
        answers = room.serving.scheduler.submit(*requests)
        return EventStream(_compared(room, body, messages, models, answers), answers)

    @router.post("/vote", summary="Which answer is better", responses=refused(404, 409, 503))
    async def vote(body: VoteBody) -> dict[str, Any]:
        await room.check_session(body.session)
        found = await room.kept(partial(room.events.comparison, body.comparison))
        if found is None or found.session != body.session:
            text = "there is no such comparison in this session"
            raise Refusal(404, text, code="no_such_comparison", param="comparison")
        await room.note(
            "vote",
            {"overall": body.overall, "criteria": body.criteria.model_dump(exclude_none=True)},
            session=body.session,
            key=body.comparison,
            twice=Refusal(409, "this comparison has its vote", code="already_voted"),
        )
        return {"stored": True, "models": found.body["models"]}


async def _compared(
    room: Classroom,
    body: CompareBody,
    messages: Sequence[Message],
    models: Sequence[str],
    answers: Sequence[Answer],
) -> AsyncGenerator[dict[str, Any]]:
    """Both answers as they come; the comparison's id once both are complete, and stored."""
    texts, ended = {"A": "", "B": ""}, {"A": "", "B": ""}
    async with aclosing(interleaved(answers)) as pieces:
        async for at, piece in pieces:
            side = "AB"[at]
            if piece.text:
                texts[side] += piece.text
                yield {"side": side, "text": piece.text}
            if piece.ended is not None:
                ended[side] = FINISH[piece.ended]
                yield {"side": side, "ended": ended[side]}
    key = secrets.token_hex(16)
    compared = {
        "messages": [[turn.role, turn.content] for turn in body.conversation],
        "system": room.tutor.system,
        "models": dict(zip("AB", models, strict=True)),
        "answers": texts,
        "ended": ended,
    }
    await room.note("comparison", compared, session=body.session, key=key)
    yield {"comparison": key}


def _config(room: Classroom) -> dict[str, Any]:
    tutor = room.tutor
    return {
        "models": [
            {"id": name, "about": served.about} for name, served in room.serving.models.items()
        ],
        "ways": room.ways,
        "hints": [step.name for step in tutor.hints],
        "limits": {"message": tutor.limits.message, "tokens": tutor.limits.tokens},
        "kept": kept_sentence(tutor),
        "system": tutor.system is not None,
    }


def kept_sentence(tutor: Tutor) -> str:
    """What is stored of a student, for the student to read."""
    what = "What you compare, your votes, ratings and quiz answers"
    if tutor.logs.messages:
        what = "What you write, the answers, your votes, ratings and quiz answers"
    rest = "" if tutor.logs.messages else "; your other questions are only counted"
    days = f"{tutor.logs.keep_days} days"
    return f"{what} are kept for {days} under a random number, without your name{rest}."
