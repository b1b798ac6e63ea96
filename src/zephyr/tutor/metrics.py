"""Prometheus metrics of the server, in the text exposition format."""

import time
from collections import Counter

from fastapi import APIRouter, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from zephyr.tutor.scheduler import Scheduler

BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds, in seconds, of the times to the first bytes of an answer."""


class Metrics:
    """Request counts by route and status, and a histogram of times to first byte."""

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, int]] = Counter()
        self._waits: Counter[float] = Counter()
        self._seconds = 0.0

    def observe(self, route: str, status: int, seconds: float) -> None:
        self._requests[route, status] += 1
        self._waits[next((bound for bound in BUCKETS if seconds <= bound), float("inf"))] += 1
        self._seconds += seconds

    def text(self, scheduler: Scheduler) -> str:
        counts = scheduler.stats
        lines = ["# TYPE zephyr_requests_total counter"]
        for (route, status), number in sorted(self._requests.items()):
            lines.append(f'zephyr_requests_total{{route="{route}",status="{status}"}} {number}')
        lines.append("# TYPE zephyr_first_byte_seconds histogram")
        total = 0
        for bound in (*BUCKETS, float("inf")):
            total += self._waits[bound]
            name = "+Inf" if bound == float("inf") else str(bound)
            lines.append(f'zephyr_first_byte_seconds_bucket{{le="{name}"}} {total}')
        lines += [
            f"zephyr_first_byte_seconds_sum {self._seconds:.6f}",
            f"zephyr_first_byte_seconds_count {total}",
            "# TYPE zephyr_waiting gauge",
            f"zephyr_waiting {counts.waiting}",
            "# TYPE zephyr_answering gauge",
            f"zephyr_answering {counts.running}",
            "# TYPE zephyr_tokens_total counter",
            f"zephyr_tokens_total {counts.generated_tokens}",
        ]
        return "\n".join(lines) + "\n"


class MetricsMiddleware:
    """ASGI middleware that records every request in the metrics."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun = time.perf_counter()
        status = 0
        seconds = 0.0

        async def timed(message: Message) -> None:
            nonlocal status, seconds
            if message["type"] == "http.response.start":
                status = message["status"]
            elif not seconds:
                seconds = time.perf_counter() - begun
            await send(message)

        try:
            await self.app(scope, receive, timed)
        finally:
            name = scope["route"].path if "route" in scope else "other"  # if any fits
            self.metrics.observe(name, status or 500, seconds)


def metrics_routes(metrics: Metrics, scheduler: Scheduler) -> APIRouter:
    router = APIRouter()

    @router.get("/metrics", summary="Counts for Prometheus", response_class=Response)
    async def read() -> Response:
        return Response(metrics.text(scheduler), media_type="text/plain; version=0.0.4")

    return router
