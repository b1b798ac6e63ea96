"""Prometheus metrics of the server."""

import time
from collections.abc import Iterator

from fastapi import APIRouter, Response
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from zephyr.tutor.scheduler import Scheduler

BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds, in seconds, of the times to the first bytes of an answer."""


class ServerMetrics(Collector):
    """Request counts by route and status, times to first byte, and the scheduler's state."""

    def __init__(self, scheduler: Scheduler) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no annotation
        self.scheduler = scheduler
        self.registry = CollectorRegistry()
        self.registry.register(self)
        self.requests = Counter(
            "zephyr_requests", "Requests", ["route", "status"], registry=self.registry
        )
        self.first_byte_seconds = Histogram(
            "zephyr_first_byte_seconds",
            "Seconds to the first bytes of an answer",
            buckets=BUCKETS,
            registry=self.registry,
        )

    def collect(self) -> Iterator[Metric]:
        """The scheduler's state, read when it is asked for."""
        stats = self.scheduler.stats
        yield GaugeMetricFamily("zephyr_waiting", "Requests in the queue", stats.waiting)
        yield GaugeMetricFamily("zephyr_answering", "Requests in the batch", stats.running)
        yield CounterMetricFamily("zephyr_tokens", "Generated tokens", stats.generated_tokens)


class MetricsMiddleware:
    """ASGI middleware that records every request in the metrics."""

    def __init__(self, app: ASGIApp, metrics: ServerMetrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start = time.perf_counter()
        status = 0
        first_byte_seconds = 0.0

        async def timed_send(message: Message) -> None:
            nonlocal status, first_byte_seconds
            if message["type"] == "http.response.start":
                status = message["status"]
            elif not first_byte_seconds:
                first_byte_seconds = time.perf_counter() - start
            await send(message)

        try:
            await self.app(scope, receive, timed_send)
        finally:
            route = scope["route"].path if "route" in scope else "other"  # if any fits
            self.metrics.requests.labels(route, str(status or 500)).inc()
            self.metrics.first_byte_seconds.observe(first_byte_seconds)


def metrics_routes(metrics: ServerMetrics) -> APIRouter:
    """The route /metrics, which Prometheus scrapes."""
    router = APIRouter()

    @router.get("/metrics", summary="Counts for Prometheus", response_class=Response)
    async def read() -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    return router
