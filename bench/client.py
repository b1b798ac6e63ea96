"""A small HTTP client on bare sockets, which costs a loaded machine less than a library's would.

    async with request(port, "POST", "/v1/chat/completions", body) as reply:
        async for event in reply.events():
            ...

Each request has a connection of its own. One may be left in mid-stream, and read as slowly as
wanted: leaving the block closes the connection.
"""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

HOST = "127.0.0.1"
PATIENCE = 900
"""Seconds after which a server that says nothing is given up."""
NARROW = 4096
"""Bytes that a slow reader's side of a connection takes before the other side has to wait."""


class Reply:
    """The status and headers of an answer; its body is read on demand."""

    def __init__(self, status: int, headers: dict[str, str], reader: asyncio.StreamReader) -> None:
        self.status = status
        self.headers = headers
        self.done = False  # whether a stream of events has told its own end
        self._reader = reader

    async def parts(self) -> AsyncIterator[bytes]:
        """The body as it comes."""
        if self.headers.get("transfer-encoding") == "chunked":
            while size := int(await self._read(self._reader.readline()), 16):
                yield await self._read(self._reader.readexactly(size))
                await self._read(self._reader.readexactly(2))
        elif "content-length" in self.headers:
            yield await self._read(self._reader.readexactly(int(self.headers["content-length"])))
        else:
            while part := await self._read(self._reader.read(1 << 16)):
                yield part

    async def content(self) -> bytes:
        return b"".join([part async for part in self.parts()])

    async def json(self) -> Any:
        return json.loads(await self.content())

    async def events(self) -> AsyncIterator[Any]:
        """The values of server-sent events, up to `[DONE]` or the end of the body."""
        rest = b""
        async for part in self.parts():
            *lines, rest = (rest + part).split(b"\n")
            for line in lines:
                if line.startswith(b"data:"):
                    data = line.removeprefix(b"data:").strip()
                    if data == b"[DONE]":
                        self.done = True
                        return
                    yield json.loads(data)

    async def _read(self, reading: Any) -> bytes:
        found: bytes = await asyncio.wait_for(reading, PATIENCE)
        return found


@asynccontextmanager
async def request(
    port: int,
    method: str,
    path: str,
    body: Any = None,
    headers: Mapping[str, str] | None = None,
    *,
    narrow: bool = False,
) -> AsyncIterator[Reply]:
    """Sends a request, and gives what is answered; `body` is sent as JSON, bytes as they are.

    Raises:
        OSError: there is no connection, or it broke.
        asyncio.IncompleteReadError: the server ended it in the middle of its answer.
    """
    data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = {"Host": f"{HOST}:{port}", "Content-Type": "application/json", "Connection": "close"}
    sent |= {"Content-Length": str(len(data)), **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
    reader, writer = await _connect(port, narrow)
    try:
        writer.write(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + data)
        await writer.drain()
        line = await asyncio.wait_for(reader.readline(), PATIENCE)
        if not line:
            raise ConnectionResetError("the server closed the connection without an answer")
        found = {}
        while (header := (await reader.readline()).decode("latin-1").strip()) != "":
            name, _, value = header.partition(":")
            found[name.lower()] = value.strip()
        yield Reply(int(line.split()[1]), found, reader)
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def _connect(port: int, narrow: bool) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if not narrow:
        return await asyncio.open_connection(HOST, port)
    own = socket.socket()
    own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, NARROW)
    own.setblocking(False)
    await asyncio.get_running_loop().sock_connect(own, (HOST, port))
    return await asyncio.open_connection(sock=own, limit=NARROW)


def free_port() -> int:
    """A port on which nothing listens now."""
    with socket.socket() as own:
        own.bind((HOST, 0))
        port: int = own.getsockname()[1]
        return port
