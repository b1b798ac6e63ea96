"""What is hardly HTTP, sent to a real server, which must answer the next request."""

import errno
import json
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from urllib.parse import urlsplit

import pytest

from tests.tutor.conftest import Server, start_server
from tests.workspace import Workspace

pytestmark = pytest.mark.enable_socket

BODY = json.dumps(
    {"model": "M1", "messages": [{"role": "user", "content": "What is force?"}], "max_tokens": 2}
).encode()
CHAT_HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
)
CONTENT_LENGTH = b"Content-Length: %d\r\n" % len(BODY)


@pytest.fixture
def port(server: Server) -> Iterator[int]:
    """The port of a server that must still answer when the test has done its worst."""
    found = urlsplit(server.url).port
    assert found is not None
    yield found
    assert (
        status_code(
            send_bytes(found, CHAT_HEAD + CONTENT_LENGTH + b"Connection: close\r\n\r\n" + BODY)
        )
        == 200
    )


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def send_bytes(port: int, sent: bytes, *, end: bool = False) -> bytes:
    """All that a server says to some bytes; with `end` nothing more is to come."""
    with connect(port) as connection:
        try:
            connection.sendall(sent)
            if end:
                connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(1 << 16), b""))
        except OSError as error:  # it was refused before all was sent
            if not isinstance(error, ConnectionError) and error.errno != errno.ENOTCONN:
                raise
            return b""


def status_code(reply: bytes) -> int:
    return int(reply.split()[1])


CONNECTION_CLOSE = b"Connection: close\r\n"
MALFORMED_REQUESTS = {
    "noise": b"\x16\x03\x01\x02\x00\x01\x00" + bytes(range(256)),
    "no request": b"HELO tutor\r\n\r\n",
    "another version": b"GET / HTTP/9.9\r\nHost: 127.0.0.1\r\n\r\n",
    "no host": b"GET /v1/models HTTP/1.1\r\n" + CONNECTION_CLOSE + b"\r\n",
    "two hosts": b"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n"
    + CONNECTION_CLOSE
    + b"\r\n",
    "endless headers": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
    "two lengths": CHAT_HEAD
    + CONTENT_LENGTH
    + b"Content-Length: 5\r\n"
    + CONNECTION_CLOSE
    + b"\r\n"
    + BODY,
    "a length and chunks": CHAT_HEAD
    + CONTENT_LENGTH
    + b"Transfer-Encoding: chunked\r\n"
    + CONNECTION_CLOSE
    + b"\r\nzz",
    "a length and whole chunks": CHAT_HEAD
    + CONTENT_LENGTH
    + b"Transfer-Encoding: chunked\r\n"
    + b"\r\n%x\r\n%s\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    % (len(BODY), BODY),
    "a chunk that is none": CHAT_HEAD
    + b"Transfer-Encoding: chunked\r\n"
    + CONNECTION_CLOSE
    + b"\r\nzz\r\n",
    "a negative length": CHAT_HEAD + b"Content-Length: -5\r\n" + CONNECTION_CLOSE + b"\r\n" + BODY,
    "a proxy's request": b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n"
    + CONNECTION_CLOSE
    + b"\r\n",
    "a tunnel": b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example\r\n"
    + CONNECTION_CLOSE
    + b"\r\n",
}


@pytest.mark.parametrize("sent", MALFORMED_REQUESTS.values(), ids=MALFORMED_REQUESTS)
def test_what_is_hardly_http_is_refused(port: int, sent: bytes) -> None:
    reply = send_bytes(port, sent, end=True)
    assert not reply or 400 <= status_code(reply) < 500
    assert reply.count(b"HTTP/1.1") <= 1  # no second request is found in it
    assert b"Traceback" not in reply


def test_a_body_without_a_length_is_read_up_to_the_limit(port: int) -> None:
    part = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    chunked = CHAT_HEAD + b"Transfer-Encoding: chunked\r\n" + CONNECTION_CLOSE + b"\r\n"
    small = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
    assert status_code(send_bytes(port, chunked + small)) == 200
    reply = send_bytes(port, chunked + part * 40 + b"0\r\n\r\n")
    assert not reply or status_code(reply) == 413


def test_half_a_body_is_waited_for_without_keeping_others_waiting(port: int) -> None:
    with ExitStack() as stack:
        for _ in range(50):
            connection = stack.enter_context(connect(port))
            connection.sendall(CHAT_HEAD + CONTENT_LENGTH + b"\r\n" + BODY[: len(BODY) // 2])
        assert (
            status_code(
                send_bytes(port, CHAT_HEAD + CONTENT_LENGTH + CONNECTION_CLOSE + b"\r\n" + BODY)
            )
            == 200
        )


def test_requests_in_one_connection_are_answered_in_turn(port: int) -> None:
    one = CHAT_HEAD + CONTENT_LENGTH + b"\r\n" + BODY
    last = CHAT_HEAD + CONTENT_LENGTH + CONNECTION_CLOSE + b"\r\n" + BODY
    reply = send_bytes(port, one * 4 + last)
    assert reply.count(b"HTTP/1.1 200 OK") == 5


def read_metric(port: int, name: str) -> float:
    reply = send_bytes(
        port, b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n" + CONNECTION_CLOSE + b"\r\n"
    ).decode()
    (line,) = [line for line in reply.splitlines() if line.startswith(f"{name} ")]
    return float(line.removeprefix(f"{name} "))


def test_a_client_that_disconnects_at_once_is_answered_no_further(port: int) -> None:
    request = {"model": "M1", "messages": [{"role": "user", "content": "What is force?"}]}
    before = read_metric(port, "zephyr_tokens_total")
    for stream in [True, False] * 20:
        body = json.dumps({**request, "temperature": 2, "stream": stream}).encode()
        with connect(port) as connection:
            connection.sendall(CHAT_HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    while read_metric(port, "zephyr_waiting") or read_metric(port, "zephyr_answering"):
        time.sleep(0.01)
    assert read_metric(port, "zephyr_tokens_total") - before < 40 * 20  # an answer has 100


def test_sigterm_ends_it_with_0_whatever_it_does(finished_workspace: Workspace) -> None:
    with start_server(finished_workspace, "M1") as server, ExitStack() as stack:
        port = urlsplit(server.url).port
        assert port is not None
        for sent in (b"", b"GET / HT", CHAT_HEAD + CONTENT_LENGTH + b"\r\n" + BODY[:9]):
            stack.enter_context(connect(port)).sendall(sent)
        request = {"model": "M1", "messages": [{"role": "user", "content": "?"}], "stream": True}
        body = json.dumps({**request, "temperature": 2}).encode()
        streaming = stack.enter_context(connect(port))
        streaming.sendall(CHAT_HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        start = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=30) == 0
        assert time.monotonic() - start < 15
    loading = finished_workspace.start_command("serve", "--recipe", "tiny.yaml", "--port", "0")
    assert "loading" in loading.stdout.readline()
    loading.send_signal(signal.SIGTERM)
    assert loading.wait(timeout=30) == 0
    loading.stdout.close()
