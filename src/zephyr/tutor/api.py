"""The FastAPI app: routers, middleware, error handlers, and the static pages."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from fastapi import APIRouter, FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

import zephyr
from zephyr.tutor.access import AccessMiddleware, AccessPolicy
from zephyr.tutor.api_errors import add_error_handlers
from zephyr.tutor.metrics import MetricsMiddleware, ServerMetrics, metrics_routes
from zephyr.tutor.openai_routes import OnAnswer, ignore_answer, openai_routes
from zephyr.tutor.serving import ServingEngine
from zephyr.tutor.settings import TutorSettings

PAGE_FOLDER = Path(str(files("zephyr.tutor") / "page"))


def create_app(
    serving: ServingEngine,
    settings: TutorSettings,
    access: AccessPolicy,
    routers: Sequence[APIRouter] = (),
    on_answer: OnAnswer = ignore_answer,
) -> FastAPI:
    """Creates the FastAPI app; `routers` are added, `on_answer` is called after each answer."""
    app = FastAPI(
        title="Zephyr",
        version=zephyr.__version__,
        description="A tutor for a course, in OpenAI's form and with a page of its own.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    metrics = ServerMetrics(serving.scheduler)
    add_error_handlers(app)
    app.add_middleware(MetricsMiddleware, metrics=metrics)
    app.add_middleware(AccessMiddleware, access=access)
    app.include_router(openai_routes(serving, settings, on_answer))
    app.include_router(metrics_routes(metrics))
    for router in routers:
        app.include_router(router)

    @app.get("/healthz", summary="Whether the server answers")
    async def healthy() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE_FOLDER / "index.html")

    @app.get("/teacher", include_in_schema=False)
    async def teacher() -> FileResponse:
        return FileResponse(PAGE_FOLDER / "teacher.html")

    app.mount("/page", StaticFiles(directory=PAGE_FOLDER), name="page")
    return app
