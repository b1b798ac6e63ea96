"""HTTP client of the serving benchmarks: each request has a connection of its own.

A stream may be left before its end, and read as slowly as wanted: leaving it closes the connection.
"""

import socket
from collections.abc import AsyncIterator
from typing import Any

import httpx2

HOST = "127.0.0.1"
TIMEOUT = 900
"""Seconds after which a server that sends nothing is given up."""
CHAT = "/v1/chat/completions"


def open_client(port: int, receive_buffer: int | None = None) -> httpx2.AsyncClient:
    """A client of the server on a port; the server waits once a `receive_buffer` is full."""
    options = [(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)] if receive_buffer else None
    transport = httpx2.AsyncHTTPTransport(
        verify=False,
        trust_env=False,
        limits=httpx2.Limits(max_connections=None, max_keepalive_connections=0),
        socket_options=options,
    )
    return httpx2.AsyncClient(
        base_url=f"http://{HOST}:{port}", transport=transport, timeout=TIMEOUT
    )


class EventStream:
    """The values of server-sent events, up to `[DONE]` or the end of the body."""

    def __init__(self, response: httpx2.Response) -> None:
        self.response = response
        self.is_complete = False
        """Whether `[DONE]` has come."""

    async def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
        async for event in httpx2.EventSource(self.response):
            if event.data == "[DONE]":
                self.is_complete = True
                return
            value: dict[str, Any] = event.json()
            yield value


def event_text(event: dict[str, Any]) -> str:
    """The text in an event, whichever route it comes from."""
    if choices := event.get("choices"):
        return "".join(choice["delta"].get("content") or "" for choice in choices)
    return str(event.get("text", ""))


def free_port() -> int:
    """A port on which nothing listens now."""
    with socket.socket() as own:
        own.bind((HOST, 0))
        port: int = own.getsockname()[1]
        return port
