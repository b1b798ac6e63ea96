"""Teacher routes (/teacher): statistics, votes and events; they need the teacher's token."""

import csv
import io
import json
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from zephyr.tutor.api_errors import error_responses
from zephyr.tutor.classroom import Classroom
from zephyr.tutor.events import Event
from zephyr.tutor.preferences import to_raw_rows
from zephyr.tutor.summary import summarize

CSV_COLUMNS = ("id", "time", "session", "kind", "model", "key", "body")


def teacher_routes(classroom: Classroom) -> APIRouter:
    """The router of all routes under /teacher."""
    router = APIRouter(prefix="/teacher", tags=["Teacher"], responses=error_responses(503))

    @router.get("/summary", summary="Figures of the class")
    async def figures() -> dict[str, Any]:
        return await classroom.run_in_thread(
            lambda: summarize(classroom.events.list_events(), classroom.settings.course)
        )

    @router.get(
        "/preferences.json", summary="Votes in the course's raw form", response_class=Response
    )
    async def votes() -> Response:
        def make_json() -> str:
            vote_events = classroom.events.list_events("comparison", "vote")
            return json.dumps(
                to_raw_rows(vote_events, classroom.settings.course), indent=1, ensure_ascii=False
            )

        return _attachment(
            await classroom.run_in_thread(make_json), "application/json", "preferences.json"
        )

    @router.get("/events.csv", summary="All events", response_class=Response)
    async def events() -> Response:
        text = await classroom.run_in_thread(lambda: to_csv(classroom.events.list_events()))
        return _attachment(text, "text/csv", "events.csv")

    return router


def _attachment(text: str, media_type: str, name: str) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
    return Response(text, media_type=media_type, headers=headers)


def to_csv(events: list[Event]) -> str:
    """Formats events as CSV; sessions are numbered, since a session's id is its owner's key."""
    session_numbers: dict[str, int] = {}
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for event in events:
        session = event.session
        number = (
            None
            if session is None
            else session_numbers.setdefault(session, len(session_numbers) + 1)
        )
        body = json.dumps(event.body, ensure_ascii=False)
        writer.writerow((event.id, event.time, number, event.kind, event.model, event.key, body))
    return buffer.getvalue()
