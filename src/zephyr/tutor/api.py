"""The app: routes, who may ask them, how errors are told, and the pages."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from fastapi import APIRouter, FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

import zephyr
from zephyr.tutor.access import Access, Guard
from zephyr.tutor.metrics import Counting, Metrics, metrics_routes
from zephyr.tutor.openai_routes import Heard, nobody, openai_routes
from zephyr.tutor.refusal import answer_errors
from zephyr.tutor.serving import Serving
from zephyr.tutor.settings import Tutor

PAGE = Path(str(files("zephyr.tutor") / "page"))


def make_app(
    serving: Serving,
    tutor: Tutor,
    access: Access,
    routers: Sequence[APIRouter] = (),
    heard: Heard = nobody,
) -> FastAPI:
    """The app of a class; `routers` and `heard` keep what happens there."""
    app = FastAPI(
        title="Zephyr",
        version=zephyr.__version__,
        description="A tutor for a course, in OpenAI's form and with a page of its own.",
        docs_url=None,
        redoc_url=None,
    )
    metrics = Metrics()
    answer_errors(app)
    app.add_middleware(Counting, metrics=metrics)
    app.add_middleware(Guard, access=access)
    app.include_router(openai_routes(serving, tutor, heard))
    app.include_router(metrics_routes(metrics, serving.scheduler))
    for router in routers:
        app.include_router(router)

    @app.get("/healthz", summary="Whether the server answers")
    async def healthy() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE / "index.html")

    @app.get("/teacher", include_in_schema=False)
    async def teacher() -> FileResponse:
        return FileResponse(PAGE / "teacher.html")

    app.mount("/page", StaticFiles(directory=PAGE), name="page")
    return app
