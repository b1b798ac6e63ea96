"""Teacher routes (/teacher): statistics, votes and events; they need the teacher's token."""

import csv
import io
import json
from collections.abc import AsyncGenerator, Iterator
from functools import partial
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from zephyr.tutor.api_errors import error_responses
from zephyr.tutor.classroom import Classroom
from zephyr.tutor.events import EventLog
from zephyr.tutor.preferences import to_raw_rows
from zephyr.tutor.summary import summarize

CSV_COLUMNS = ("id", "time", "session", "kind", "model", "key", "body")
CSV_PAGE = 100
"""Events that are read at a time."""


def teacher_routes(classroom: Classroom, student_url: str | None = None) -> APIRouter:
    """The router of all routes under /teacher.

    `student_url` is the address that students open; None where the server does not know it, so
    that it is the one by which the teacher came.
    """
    router = APIRouter(prefix="/teacher", tags=["Teacher"], responses=error_responses(503))

    @router.get("/summary", summary="Figures of the class")
    async def figures() -> dict[str, Any]:
        return await classroom.run_in_thread(
            lambda: summarize(classroom.events, classroom.settings.course)
        )

    @router.get("/address", summary="The address for students, and its QR code (SVG)")
    async def address(request: Request) -> dict[str, str]:
        url = student_url or str(request.base_url)
        return {"url": url, "qr": _qr_code(url)}

    @router.get(
        "/preferences.json", summary="Votes in the course's raw form", response_class=Response
    )
    async def votes() -> Response:
        def make_json() -> str:
            vote_events = classroom.events.list_events("comparison", "vote")
            return json.dumps(
                to_raw_rows(vote_events, classroom.settings.course), indent=1, ensure_ascii=False
            )

        text = await classroom.run_in_thread(make_json)
        return Response(
            text, headers=_attachment("preferences.json"), media_type="application/json"
        )

    @router.get("/events.csv", summary="All events", response_class=Response)
    async def events() -> Response:
        pages = csv_pages(classroom.events)
        first = await classroom.run_in_thread(partial(next, pages))

        async def stream() -> AsyncGenerator[str]:
            page = first
            while page:
                yield page
                page = await classroom.run_in_thread(partial(next, pages, ""))

        return StreamingResponse(stream(), headers=_attachment("events.csv"), media_type="text/csv")

    return router


def _qr_code(text: str) -> str:
    """A QR code as a data URI of SVG, dark on white in every colour scheme."""
    import segno

    uri: str = segno.make(text, micro=False).svg_data_uri(scale=5, border=4, light="#fff")
    return uri


def _attachment(name: str) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="{name}"'}


def csv_pages(events: EventLog) -> Iterator[str]:
    """All events as CSV, in pieces; sessions are numbered: a session's id is its owner's key.

    It begins with a byte order mark, without which Excel takes it for another encoding. Where a
    semicolon separates cells, as in Excel of many languages, one in a text would begin a cell, and
    what follows it might be a formula: JSON can write it in another way.
    """
    session_numbers: dict[str, int] = {}
    rows: list[tuple[Any, ...]] = [CSV_COLUMNS]
    page, last_id = "\ufeff", 0
    while rows:
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\n").writerows(rows)
        yield page + buffer.getvalue()
        page, rows = "", []
        for number, moment, session, kind, model, key, body in events.read_after(last_id, CSV_PAGE):
            student = session and session_numbers.setdefault(session, len(session_numbers) + 1)
            safe_body = body.replace(";", "\\u003b")
            rows.append((number, moment, student, kind, model, key, safe_body))
            last_id = number
