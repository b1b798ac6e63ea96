"""A raw ASGI client: one request to an app in this process, with every byte as given.

Clients mend what they are given: they take `..` out of paths, and add lengths and hosts.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

HOST = "127.0.0.1:8000"
TIMEOUT_SECONDS = 60


@dataclass
class Reply:
    """A response; `exception` is what the app raised to the server."""

    status: int = 0
    headers: Mapping[str, str] | None = None
    body: bytes = b""
    exception: BaseException | None = None

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """The values of server-sent events, without the last `[DONE]`."""
        lines = self.body.decode().split("\n\n")
        data = [line.removeprefix("data: ") for line in lines if line]
        return [json.loads(one) for one in data if one != "[DONE]"]


def call(
    app: Any,
    method: str,
    path: str,
    body: Any = None,
    headers: Mapping[str, str] | None = None,
    *,
    parts: Sequence[bytes] | None = None,
    client: str = "127.0.0.1",
) -> Reply:
    """`call_async` with an event loop of its own."""
    return asyncio.run(call_async(app, method, path, body, headers, parts=parts, client=client))


async def call_async(
    app: Any,
    method: str,
    path: str,
    body: Any = None,
    headers: Mapping[str, str] | None = None,
    *,
    parts: Sequence[bytes] | None = None,
    client: str = "127.0.0.1",
) -> Reply:
    """The answer to one request; `body` is sent as JSON, bytes as they are.

    With `parts` the body comes in chunks and its length is not sent. A header that is None is left
    out.
    """
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    header_values: dict[str, str | None] = {"host": HOST, "content-type": "application/json"}
    if parts is None:
        header_values["content-length"] = str(len(data))
    header_values |= {name.lower(): value for name, value in (headers or {}).items()}
    raw, _, query = path.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(raw),
        "raw_path": raw.encode("latin-1"),
        "query_string": query.encode("latin-1"),
        "root_path": "",
        "headers": [
            (n.encode(), v.encode("latin-1")) for n, v in header_values.items() if v is not None
        ],
        "client": (client, 50_000),
        "server": ("127.0.0.1", 8000),
        "state": {},
    }
    return await asyncio.wait_for(_call(app, scope, parts or [data]), TIMEOUT_SECONDS)


async def _call(app: Any, scope: dict[str, Any], parts: Sequence[bytes]) -> Reply:
    reply = Reply()
    remaining_parts = list(parts)
    finished = asyncio.Event()

    async def receive() -> dict[str, Any]:
        if remaining_parts:
            part = remaining_parts.pop(0)
            return {"type": "http.request", "body": part, "more_body": bool(remaining_parts)}
        await finished.wait()
        return {"type": "http.disconnect"}

    async def send(message: Mapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            reply.status = message["status"]
            reply.headers = {k.decode().lower(): v.decode() for k, v in message["headers"]}
        else:
            reply.body += message.get("body", b"")
            if not message.get("more_body"):
                finished.set()

    try:
        await app(scope, receive, send)
    except Exception as error:  # noqa: BLE001  # whatever it is, a server would answer with 500
        reply.exception = error
        reply.status = reply.status or 500
    return reply
