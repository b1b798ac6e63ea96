"""Who may ask: hosts, origins, passwords that can't be guessed, sizes, headers."""

import asyncio
import json
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from zephyr.errors import ZephyrError
from zephyr.tutor import access
from zephyr.tutor.access import AccessMiddleware, AccessPolicy, load_teacher_token
from zephyr.tutor.listen import PASSWORD_VARIABLE, ListenAddress

PASSWORD, TEACHER = "a class of physics", "the teacher's own"


def send_request(
    middleware: AccessMiddleware, path: str = "/v1/models", method: str = "GET", **headers: str
) -> tuple[int, dict[str, str], Any]:
    """Status, headers and body of what a guarded app answers."""
    sent: list[dict[str, Any]] = []
    body = headers.pop("body", "").encode()
    stuck, parts = bool(headers.pop("stuck", "")), list[bytes]()
    raw = {"host": "localhost:8000", **{k.replace("_", "-"): v for k, v in headers.items()}}
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "client": ("10.0.0.1", 1),
        "headers": [(k.encode(), v.encode()) for k, v in raw.items()],
    }

    async def receive() -> dict[str, Any]:
        if stuck and parts:
            await asyncio.Event().wait()
        parts.append(body)
        return {"type": "http.request", "body": body, "more_body": stuck}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(middleware(scope, receive, send))
    found = {k.decode(): v.decode() for k, v in sent[0]["headers"]}
    content = b"".join(message.get("body", b"") for message in sent)
    return sent[0]["status"], found, json.loads(content or b"null")


async def app(scope: Any, receive: Any, send: Any) -> None:
    while (await receive())["more_body"]:
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    admitted = json.dumps(scope["state"]["admitted"]).encode()
    await send({"type": "http.response.body", "body": admitted})


def test_an_open_server_answers_this_machine_alone() -> None:
    middleware = AccessMiddleware(app, AccessPolicy(None, TEACHER))
    assert send_request(middleware)[0] == 200
    assert send_request(middleware, host="[::1]:8000")[0] == 200
    for host in ("evil.example", "localhost.evil.example:8000", "127.0.0.1.nip.io", ""):
        status, _, body = send_request(middleware, host=host)
        assert (status, body["error"]["code"]) == (403, "foreign_host")


def test_no_page_of_another_site_is_answered() -> None:
    middleware = AccessMiddleware(app, AccessPolicy(None, TEACHER))
    assert send_request(middleware, origin="http://localhost:8000")[0] == 200
    for origin in ("http://evil.example", "http://localhost:9000", "null"):
        status, _, body = send_request(middleware, method="POST", origin=origin)
        assert (status, body["error"]["code"]) == (403, "foreign_origin")


def test_a_class_needs_its_password_and_the_teacher_a_token() -> None:
    middleware = AccessMiddleware(app, AccessPolicy(PASSWORD, TEACHER))
    assert send_request(middleware)[0] == 401
    assert send_request(middleware, authorization=f"Bearer {PASSWORD}")[0] == 200
    assert send_request(middleware, authorization=f"Basic {PASSWORD}")[0] == 401
    for path in ("/", "/teacher", "/page/main.js", "/healthz", "/tutor/config"):
        status, _, admitted = send_request(middleware, path, host="anything.example")
        assert (status, admitted) == (200, False)
    assert send_request(middleware, "/tutor/config", authorization=f"Bearer {PASSWORD}")[2] is True
    assert send_request(middleware, "/tutor/config", authorization="Bearer wrong")[0] == 401
    utf8_middleware = AccessMiddleware(app, AccessPolicy("größer als null", TEACHER))
    assert (
        send_request(utf8_middleware, authorization="Bearer größer als null")[0] == 200
    )  # sent as UTF-8
    for server in (middleware, AccessMiddleware(app, AccessPolicy(None, TEACHER))):
        assert send_request(server, "/teacher/summary")[0] == 401
        assert (
            send_request(server, "/teacher/summary", authorization=f"Bearer {PASSWORD}")[0] == 401
        )
        assert send_request(server, "/teacher/summary", authorization=f"Bearer {TEACHER}")[0] == 200


def test_a_password_can_be_guessed_ten_times_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    middleware = AccessMiddleware(app, AccessPolicy(PASSWORD, TEACHER))
    codes = [send_request(middleware, authorization=f"Bearer {n}")[0] for n in range(12)]
    assert codes == [401] * 10 + [429] * 2
    status, headers, _ = send_request(middleware, authorization=f"Bearer {PASSWORD}")
    assert status == 429
    assert headers["retry-after"] == "61"
    now += 60.1
    assert send_request(middleware, authorization=f"Bearer {PASSWORD}")[0] == 200
    codes = [send_request(middleware, authorization=f"Bearer {n}")[0] for n in range(302)]
    assert codes == [401] * 300 + [429] * 2  # where the right one came from, a school may sit


def test_a_request_that_never_comes_to_its_end_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(access, "BODY_TIMEOUT_SECONDS", 0.01)
    status, _, body = send_request(
        AccessMiddleware(app, AccessPolicy(None, TEACHER)), method="POST", body="a" * 9, stuck="1"
    )
    assert (status, body["error"]["code"]) == (408, "too_slow")


def test_a_large_request_is_refused_whether_or_not_it_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(access, "MAX_BODY_BYTES", 100)
    middleware = AccessMiddleware(app, AccessPolicy(None, TEACHER))
    assert send_request(middleware, method="POST", body="a" * 100)[0] == 200
    assert send_request(middleware, method="POST", body="a" * 101)[0] == 413
    assert send_request(middleware, method="POST", content_length="101")[0] == 413
    assert send_request(middleware, method="POST", content_length="-1")[0] == 413


def test_every_answer_has_the_headers_of_safety() -> None:
    middleware = AccessMiddleware(app, AccessPolicy(None, TEACHER))
    for host in ("localhost", "evil.example"):
        headers = send_request(middleware, host=host)[1]
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


def test_the_teachers_token_is_made_once_for_the_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "tutor.teacher"
    token = load_teacher_token(path)
    assert len(token) >= 32
    assert load_teacher_token(path) == token
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_no_class_is_served_openly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PASSWORD_VARIABLE, raising=False)
    assert ListenAddress().read_password() is None
    for address in (
        ListenAddress("0.0.0.0"),
        ListenAddress(behind_proxy=True),
        ListenAddress("::"),
    ):
        with pytest.raises(ZephyrError, match="needs the password of the class"):
            address.read_password()
    monkeypatch.setenv(PASSWORD_VARIABLE, PASSWORD)
    assert ListenAddress().read_password() == PASSWORD
    with pytest.raises(ZephyrError, match="sent in clear"):
        ListenAddress("0.0.0.0").read_password()
    assert ListenAddress("0.0.0.0", tls_certificate=Path("c.pem")).read_password() == PASSWORD
    assert ListenAddress("0.0.0.0", behind_proxy=True).read_password() == PASSWORD
    monkeypatch.setenv(PASSWORD_VARIABLE, "short")
    with pytest.raises(ZephyrError, match="at least 8 characters"):
        ListenAddress().read_password()
