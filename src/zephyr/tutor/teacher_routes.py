"""The teacher's routes: figures, votes and events of a class. `access` lets only the teacher in."""

import csv
import io
import json
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from zephyr.tutor.classroom import Classroom
from zephyr.tutor.events import Event
from zephyr.tutor.preferences import raw_rows
from zephyr.tutor.refusal import refused
from zephyr.tutor.summary import summary

COLUMNS = ("id", "time", "session", "kind", "model", "key", "body")


def teacher_routes(room: Classroom) -> APIRouter:
    """All routes under /teacher/."""
    router = APIRouter(prefix="/teacher", tags=["Teacher"], responses=refused(503))

    @router.get("/summary", summary="Figures of the class")
    async def figures() -> dict[str, Any]:
        return await room.kept(lambda: summary(room.events.all(), room.tutor.course))

    @router.get(
        "/preferences.json", summary="Votes in the course's raw form", response_class=Response
    )
    async def votes() -> Response:
        def made() -> str:
            found = room.events.all("comparison", "vote")
            return json.dumps(raw_rows(found, room.tutor.course), indent=1, ensure_ascii=False)

        return _file(await room.kept(made), "application/json", "preferences.json")

    @router.get("/events.csv", summary="All events", response_class=Response)
    async def events() -> Response:
        text = await room.kept(lambda: as_csv(room.events.all()))
        return _file(text, "text/csv", "events.csv")

    return router


def _file(text: str, kind: str, name: str) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
    return Response(text, media_type=kind, headers=headers)


def as_csv(events: list[Event]) -> str:
    """Events as a table. A session's id is its owner's key, so sessions are counted instead."""
    numbers: dict[str, int] = {}
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(COLUMNS)
    for event in events:
        session = event.session
        number = None if session is None else numbers.setdefault(session, len(numbers) + 1)
        body = json.dumps(event.body, ensure_ascii=False)
        table.writerow((event.id, event.time, number, event.kind, event.model, event.key, body))
    return out.getvalue()
