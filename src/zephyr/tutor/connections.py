"""Connections of the server (uvicorn, h11): deadlines, a limit on their number, quiet logs.

uvicorn waits for ever for the end of a request's headers, for a TLS handshake and for a client that
reads nothing, and takes as many connections as come.
"""

import asyncio
import logging
import math
import resource
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import h11
import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_CONNECTIONS = 1_000
RESERVED_FILES = 100
"""Open files that are kept for all else: the event log, the pages, models."""

_LOGGER = logging.getLogger(__name__)
_NO_BODY = b"Connection: close\r\nContent-Length: 0\r\n\r\n"
_FULL = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\n" + _NO_BODY
_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\n" + _NO_BODY


@dataclass(frozen=True)
class Deadlines:
    """Deadlines of a client, in seconds.

    For its TLS handshake, for the whole headers and the whole body of a request, and for taking
    some of a response. The body's is later than `access.BODY_TIMEOUT_SECONDS`, whose answer (408)
    comes first.
    """

    handshake: float = 10.0
    headers: float = 10.0
    body: float = 35.0
    write: float = 60.0

    @property
    def interval(self) -> float:
        """How often connections are looked at."""
        return min(1.0, self.headers / 4, self.body / 4, self.write / 4)


class DeadlineProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 protocol with deadlines; one object is one connection."""

    def __init__(self, *args: Any, deadlines: Deadlines, **options: Any) -> None:
        super().__init__(*args, **options)
        self._read_limits = {h11.IDLE: deadlines.headers, h11.SEND_BODY: deadlines.body}
        self._write_limit = deadlines.write
        self._client_state: Any = h11.IDLE
        self._client_since = self._write_since = self.loop.time()
        self.is_given_up = False
        """Whether its end has begun."""

    def handle_events(self) -> None:
        super().handle_events()
        if self.conn.their_state is not self._client_state:
            self._client_state = self.conn.their_state
            self._client_since = self.loop.time()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._write_since = self.loop.time()

    @property
    def idle_since(self) -> float | None:
        """When it began to wait for the headers of a request; None while it has a request."""
        is_idle = self._client_state is h11.IDLE and not self.is_given_up
        return self._client_since if is_idle else None

    def check_deadlines(self) -> None:
        """Ends the connection if its client has let a deadline pass."""
        now = self.loop.time()
        if self.transport.get_write_buffer_size() == 0:
            self._write_since = now
        if self.is_given_up or now - self._write_since > self._write_limit:
            self.transport.abort()
        elif now - self._client_since > self._read_limits.get(self._client_state, math.inf):
            self.is_given_up = True
            if self._client_state is h11.IDLE and self.conn.trailing_data[0]:
                self.transport.write(_TOO_SLOW)
            self.transport.close()


class TutorServer(uvicorn.Server):
    """uvicorn's server with an accept loop of its own, which counts TLS handshakes too.

    When there are `max_connections`, the one that has been waiting longest for its client makes
    room; where all have requests, the new one is refused (503).
    """

    def __init__(
        self,
        config: uvicorn.Config,
        deadlines: Deadlines | None = None,
        max_connections: int | None = None,
    ) -> None:
        super().__init__(config)
        self.deadlines = deadlines or Deadlines()
        self.max_connections = max_connections or min(MAX_CONNECTIONS, _usable_files())
        self._handshakes: dict[DeadlineProtocol, asyncio.Task[Any]] = {}
        self._background: list[asyncio.Task[None]] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts the app, and accepts connections from now on."""
        assert sockets is not None, "the caller binds the sockets"
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            sys.exit(STARTUP_FAILURE)
        self.servers = []  # asyncio's, of which there are none
        for listening in sockets:
            listening.setblocking(False)
        loops = [self._check_deadlines(), *map(self._accept_all, sockets)]
        self._background = [asyncio.create_task(loop) for loop in loops]
        self.started = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accepts no more connections, and ends those that there are."""
        tasks = [*self._background, *self._handshakes.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await super().shutdown(sockets)

    async def _check_deadlines(self) -> None:
        while True:
            await asyncio.sleep(self.deadlines.interval)
            for protocol in self._protocols():
                protocol.check_deadlines()

    def _protocols(self) -> list[DeadlineProtocol]:
        """The open connections, without those whose TLS handshake still goes on."""
        return [one for one in self.server_state.connections if isinstance(one, DeadlineProtocol)]

    async def _accept_all(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(0)  # an accepted socket may be at hand without a pause
            try:
                connection, _ = await loop.sock_accept(listening)
            except OSError as error:  # no file is left, or the client has gone
                _LOGGER.warning("a connection could not be accepted: %s", error.strerror)
                await asyncio.sleep(0.1)
                continue
            connection.setblocking(False)
            if self._make_room():
                self._open(connection)
            else:
                self._refuse(connection)

    def _open(self, connection: socket.socket) -> None:
        """Opens the connection of an accepted socket, after its TLS handshake (if any)."""
        protocol = DeadlineProtocol(
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
            deadlines=self.deadlines,
        )
        opening = asyncio.get_running_loop().connect_accepted_socket(
            lambda: protocol,
            connection,
            ssl=self.config.ssl,
            ssl_handshake_timeout=self.deadlines.handshake if self.config.is_ssl else None,
        )

        def finish(task: asyncio.Task[Any]) -> None:
            del self._handshakes[protocol]
            if task.cancelled() or task.exception() is not None:  # the client's failure
                connection.close()

        self._handshakes[protocol] = asyncio.create_task(opening)
        self._handshakes[protocol].add_done_callback(finish)

    def _make_room(self) -> bool:
        """Whether one more connection may be opened, if need be in place of an idle one."""
        protocols = {*self._handshakes, *self._protocols()}
        if len(protocols) < self.max_connections:
            return True
        idle = [protocol for protocol in protocols if protocol.idle_since is not None]
        if not idle:
            return False
        _LOGGER.warning("%s connections are open; the idlest makes room", len(protocols))
        idlest = min(idle, key=lambda protocol: protocol.idle_since or 0.0)
        if idlest in self.server_state.connections:
            idlest.transport.abort()
        else:
            self._handshakes[idlest].cancel()
        idlest.is_given_up = True
        return True

    def _refuse(self, connection: socket.socket) -> None:
        _LOGGER.warning("%s connections have requests; one more is refused", self.max_connections)
        with connection, suppress(OSError):
            if not self.config.is_ssl:
                connection.send(_FULL)


def _usable_files() -> int:
    """How many connections the limit of open files leaves room for, after it has been raised."""
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # some systems report a limit above what they allow
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))
    soft_limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft_limit == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return max(soft_limit - RESERVED_FILES, 1)


class LogRateLimit(logging.Filter):
    """Logging filter: lets each message pass `MAX_PER_MINUTE` times a minute, and counts the rest.

    What a client can cause can't fill the disk so.
    """

    MAX_PER_MINUTE = 5

    def __init__(self) -> None:
        super().__init__()
        self._minute_start = time.monotonic()
        self._counts: Counter[tuple[str, int, str]] = Counter()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is logged; the last before the limit says so."""
        now = time.monotonic()
        if now - self._minute_start >= 60:
            self._minute_start = now
            self._counts.clear()
        exception_type = record.exc_info[0] if record.exc_info else None
        key = (record.name, record.levelno, f"{record.msg}{exception_type}")
        self._counts[key] += 1
        if self._counts[key] == self.MAX_PER_MINUTE:
            record.msg = f"{record.msg} (more of these are not logged for a minute)"
        return self._counts[key] <= self.MAX_PER_MINUTE


def limit_logs(names: Iterable[str]) -> None:
    """Limits how often these loggers repeat a message."""
    for name in names:
        logging.getLogger(name).addFilter(LogRateLimit())
