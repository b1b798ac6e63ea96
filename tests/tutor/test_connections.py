"""Clients that are slow, silent or many, by raw sockets: each is ended, and others are answered."""

import asyncio
import logging
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from zephyr.tutor.connections import Deadlines, LogRateLimit, TutorServer

pytestmark = pytest.mark.enable_socket

SHORT = Deadlines(handshake=0.5, headers=0.5, body=0.5, write=0.5)
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
GET_AND_CLOSE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
POST_HEAD = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n"
LARGE = 32 << 20


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Reads the whole body of a POST request, takes its time, or sends much, as the path says."""
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    while scope["method"] == "POST":
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        if not message["more_body"]:
            break
    if scope["path"] == "/slow":
        await asyncio.sleep(1.5)
    body = b"a" * LARGE if scope["path"] == "/large" else b"answer"
    length = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": length})
    for at in range(0, len(body), 1 << 20):
        part = body[at : at + (1 << 20)]
        more = at + (1 << 20) < len(body)
        await send({"type": "http.response.body", "body": part, "more_body": more})


@contextmanager
def serve(deadlines: Deadlines = SHORT, **options: Any) -> Iterator[tuple[int, TutorServer]]:
    """A server in a thread: its port, and itself."""
    max_connections = options.pop("max_connections", 50)
    config = uvicorn.Config(app, log_level="warning", access_log=False, http="h11", **options)
    server = TutorServer(config, deadlines, max_connections)
    listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield listening.getsockname()[1], server
    finally:
        server.should_exit = True
        thread.join(20)
    assert not thread.is_alive()


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=15)


def read_to_end(connection: socket.socket) -> bytes:
    """All that comes until the server closes or resets the connection."""
    parts = []
    try:
        while part := connection.recv(1 << 16):
            parts.append(part)
    except ConnectionError:
        pass
    return b"".join(parts)


def ask(port: int, request: bytes = GET_AND_CLOSE) -> bytes:
    with connect(port) as connection:
        connection.sendall(request)
        return read_to_end(connection)


def drip(connection: socket.socket, data: bytes) -> None:
    """Sends a byte every 50 ms, until the server has had enough."""
    try:
        for at in range(len(data)):
            connection.sendall(data[at : at + 1])
            time.sleep(0.05)
    except OSError:
        pass


def start_dripping(data: bytes, head: bytes = b"") -> Callable[[socket.socket], None]:
    def begin(connection: socket.socket) -> None:
        connection.sendall(head)
        threading.Thread(target=drip, args=(connection, data), daemon=True).start()

    return begin


def send(data: bytes) -> Callable[[socket.socket], None]:
    return lambda connection: connection.sendall(data)


HEADERS = b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 500
SLOW_CLIENTS: dict[str, tuple[Callable[[socket.socket], None], bytes]] = {
    "silent": (send(b""), b""),
    "half a line": (send(b"GET / HT"), b"HTTP/1.1 408"),
    "no end of headers": (send(b"GET / HTTP/1.1\r\nHost: a\r\n"), b"HTTP/1.1 408"),
    "dripping headers": (start_dripping(HEADERS), b"HTTP/1.1 408"),
    "headers after an answer": (start_dripping(HEADERS, GET), b"HTTP/1.1 200"),
    "half a body": (send(POST_HEAD + b"a"), b""),
    "dripping body": (start_dripping(b"a" * 900, POST_HEAD), b""),
    "a body that nobody reads": (
        start_dripping(b"a" * 900, POST_HEAD.replace(b"POST", b"GET")),
        b"HTTP/1.1 200",
    ),
}


@pytest.mark.parametrize(("begin", "expected"), SLOW_CLIENTS.values(), ids=SLOW_CLIENTS)
def test_a_slow_client_is_ended(begin: Callable[[socket.socket], None], expected: bytes) -> None:
    with serve() as (port, server), connect(port) as connection:
        start = time.monotonic()
        begin(connection)
        reply = read_to_end(connection)
        assert 0.4 < time.monotonic() - start < 8
        assert reply[: len(expected)] == expected
        assert bool(reply) is bool(expected)
        assert ask(port).endswith(b"answer")
        _wait_until(lambda: not server.server_state.connections)


def _wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_who_reads_nothing_is_ended_and_who_reads_slowly_is_not() -> None:
    request = GET_AND_CLOSE.replace(b"/ ", b"/large ")
    with serve() as (port, server), connect(port) as silent, connect(port) as slow:
        slow.sendall(request)
        silent.sendall(request)
        num_bytes = 0
        start = time.monotonic()
        while part := slow.recv(1 << 20):
            num_bytes += len(part)
            if time.monotonic() - start < 2:
                time.sleep(0.05)
        assert num_bytes > LARGE
        _wait_until(lambda: not server.server_state.connections)
        assert len(read_to_end(silent)) < LARGE


def test_an_answer_that_takes_its_time_is_waited_for() -> None:
    with serve() as (port, _):  # longer than each deadline
        assert ask(port, GET_AND_CLOSE.replace(b"/ ", b"/slow ")).endswith(b"answer")


def test_the_idlest_connection_makes_room(caplog: pytest.LogCaptureFixture) -> None:
    with (
        serve(Deadlines(), max_connections=5) as (port, server),
        ExitStack() as stack,
        caplog.at_level(logging.WARNING, "zephyr.tutor.connections"),
    ):
        connections = [stack.enter_context(connect(port)) for _ in range(5)]
        _wait_until(lambda: len(server.server_state.connections) == 5)
        slow = connections[0]
        slow.sendall(GET_AND_CLOSE.replace(b"/ ", b"/slow "))
        time.sleep(0.2)
        assert ask(port).endswith(b"answer")
        assert read_to_end(slow).endswith(b"answer")  # it had a request
        connections[4].sendall(GET_AND_CLOSE)
        assert read_to_end(connections[4]).endswith(b"answer")
    assert "the idlest makes room" in caplog.text


def test_where_all_have_requests_one_more_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    slow_request = GET_AND_CLOSE.replace(b"/ ", b"/slow ")
    with (
        serve(Deadlines(), max_connections=3) as (port, _),
        ExitStack() as stack,
        caplog.at_level(logging.WARNING, "zephyr.tutor.connections"),
    ):
        connections = [stack.enter_context(connect(port)) for _ in range(3)]
        for connection in connections:
            connection.sendall(slow_request)
        time.sleep(0.3)
        assert ask(port, b"").startswith(b"HTTP/1.1 503")
        for connection in connections:
            assert read_to_end(connection).endswith(b"answer")
        assert ask(port).endswith(b"answer")
    assert "one more is refused" in caplog.text


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "cert.pem", folder / "key.pem"
    command = f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=a -keyout {key}"
    subprocess.run([*command.split(), "-out", certificate], check=True, capture_output=True)
    return certificate, key


def ask_over_tls(port: int) -> bytes:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with connect(port) as plain, context.wrap_socket(plain) as connection:
        connection.sendall(GET_AND_CLOSE)
        return read_to_end(connection)


def test_idle_tls_sockets_keep_nobody_waiting(
    certificate: tuple[Path, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    options = {"ssl_certfile": certificate[0], "ssl_keyfile": certificate[1]}
    deadlines = Deadlines(handshake=2.0, headers=0.5)
    with serve(deadlines, **options) as (port, server), ExitStack() as stack:
        idle = [stack.enter_context(connect(port)) for _ in range(260)]
        start = time.monotonic()
        for _ in range(5):
            assert ask_over_tls(port).endswith(b"answer")
        assert time.monotonic() - start < 5
        assert len(server.server_state.connections) + len(server._handshakes) <= 51
        for connection in idle:
            assert read_to_end(connection) == b""
        plain = stack.enter_context(connect(port))
        plain.sendall(b"no TLS at all" * 100)
        read_to_end(plain)
        _wait_until(lambda: not server._handshakes)
        assert ask_over_tls(port).endswith(b"answer")
    assert len(capfd.readouterr().err) < 50_000


def test_a_message_is_not_repeated_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    log_filter = LogRateLimit()

    def log(message: str, *args: object) -> str | None:
        record = logging.LogRecord("a", logging.WARNING, "", 0, message, args, None)
        return record.getMessage() if log_filter.filter(record) else None

    found = [log("%s connections", n) for n in range(1000)]
    assert found[:4] == [f"{n} connections" for n in range(4)]
    assert found[4] == "4 connections (more of these are not logged for a minute)"
    assert found[5:] == [None] * 995
    assert log("another") == "another"
    now += 61
    assert log("%s connections", 1) == "1 connections"
