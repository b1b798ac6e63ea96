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
from zephyr.tutor.login_limiter import LoginRateLimiter

PASSWORD, TEACHER = "a class of physics", "the teacher's own"


def send_request(
    middleware: AccessMiddleware, path: str = "/v1/models", method: str = "GET", **headers: str
) -> tuple[int, dict[str, str], Any]:
    """Status, headers and body of what a guarded app answers."""
    sent: list[dict[str, Any]] = []
    body = headers.pop("body", "").encode()
    stuck, parts = bool(headers.pop("stuck", "")), list[bytes]()
    drip, is_text = float(headers.pop("drip", "0")), bool(headers.pop("as_text", ""))
    client, scheme = headers.pop("client", "10.0.0.1"), headers.pop("scheme", "http")
    raw = {"host": "localhost:8000", **{k.replace("_", "-"): v for k, v in headers.items()}}
    scope = {
        "type": "http",
        "method": method,
        "scheme": scheme,
        "path": path,
        "client": (client, 1),
        "headers": [(k.encode(), v.encode()) for k, v in raw.items()],
    }

    async def receive() -> dict[str, Any]:
        if stuck and parts:
            await asyncio.Event().wait()
        parts.append(body)
        if drip:
            await asyncio.sleep(drip)
        return {"type": "http.request", "body": body, "more_body": stuck or bool(drip)}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(middleware(scope, receive, send))
    found = {k.decode(): v.decode() for k, v in sent[0]["headers"]}
    content = b"".join(message.get("body", b"") for message in sent)
    return sent[0]["status"], found, None if is_text else json.loads(content or b"null")


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


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that logins have been made to wait, which take no time here."""
    found: list[float] = []

    async def sleep(seconds: float) -> None:
        found.append(seconds)

    monkeypatch.setattr("zephyr.tutor.login_limiter.asyncio.sleep", sleep)
    return found


def test_wrong_passwords_are_slowed_and_the_right_one_passes(pauses: list[float]) -> None:
    middleware = AccessMiddleware(app, AccessPolicy(PASSWORD, TEACHER))
    codes = [send_request(middleware, authorization=f"Bearer {n}")[0] for n in range(10)]
    assert (codes, pauses) == ([401] * 10, [])
    status, headers, body = send_request(middleware, authorization="Bearer 10")
    assert (status, headers["retry-after"], body["error"]["code"]) == (
        429,
        "10",
        "too_many_guesses",
    )
    assert pauses == [1.0]
    other = send_request(middleware, authorization="Bearer 11", client="10.0.0.2")
    assert (other[0], pauses) == (401, [1.0])  # another address is not slowed
    assert send_request(middleware)[0] == 401  # no password is no wrong one
    assert send_request(middleware, authorization=f"Bearer {PASSWORD}")[0] == 200
    assert pauses == [1.0, 1.0]  # a guesser can't tell by the time
    codes = [send_request(middleware, authorization=f"Bearer {n}")[0] for n in range(302)]
    assert codes == [401] * 289 + [429] * 13  # where the right one came from, a school may sit
    assert send_request(middleware, authorization=f"Bearer {PASSWORD}")[0] == 200
    assert send_request(middleware, "/teacher/summary", authorization=f"Bearer {TEACHER}")[0] == 200
    assert pauses == [1.0, 1.0]  # which never waits


def test_of_one_address_one_login_a_second_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    limiter = LoginRateLimiter()
    monkeypatch.setattr(limiter, "PAUSE_SECONDS", 0.01)
    for n in range(10):
        limiter.record_failure(f"2001:db8::{n}")  # one network may choose among 2^64

    async def log_in() -> list[str]:
        async def wait(n: int) -> str:
            await limiter.wait_turn(f"2001:db8::{n:x}")
            return f"{n} after {round((time.monotonic() - start) * 100)}"

        start = time.monotonic()
        turns = await asyncio.gather(*map(wait, range(12)), return_exceptions=True)
        await limiter.wait_turn("2001:db8:0:1::1")
        return [turn if isinstance(turn, str) else turn.body["error"]["code"] for turn in turns]

    *judged, eleventh, twelfth = asyncio.run(log_in())
    assert eleventh == twelfth == "too_many_guesses"
    for n, turn in enumerate(judged):
        assert int(turn.removeprefix(f"{n} after ")) >= n + 1
    asyncio.run(limiter.wait_turn("2001:db8::1"))  # whoever waited has left


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


def test_a_body_that_drips_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "BODY_TIMEOUT_SECONDS", 0.2)
    middleware = AccessMiddleware(app, AccessPolicy(None, TEACHER))
    start = time.monotonic()
    status, headers, _ = send_request(middleware, method="POST", body="a", drip="0.05")
    assert (status, headers["connection"]) == (408, "close")
    assert time.monotonic() - start < 2


def test_a_length_that_is_said_twice_is_refused() -> None:
    middleware = AccessMiddleware(app, AccessPolicy(None, TEACHER))
    both = {"content_length": "5", "transfer_encoding": "chunked"}
    status, headers, body = send_request(middleware, method="POST", **both)
    assert (status, headers["connection"], body["error"]["code"]) == (400, "close", "two_lengths")
    assert send_request(middleware, method="POST", transfer_encoding="chunked")[0] == 200


def test_a_refusal_says_how_to_log_in_and_a_name_only_in_short() -> None:
    middleware = AccessMiddleware(app, AccessPolicy(PASSWORD, TEACHER))
    for wrong in ({}, {"authorization": "Basic x"}, {"authorization": "Bearer x"}):
        assert send_request(middleware, **wrong)[1]["www-authenticate"] == "Bearer"
    body = send_request(middleware, origin=f"https://{'o' * 9_000}.example")[2]
    assert len(body["error"]["message"]) < 400
    middleware = AccessMiddleware(app, AccessPolicy(None, TEACHER))
    body = send_request(middleware, host="h" * 9_000)[2]
    assert len(body["error"]["message"]) < 200


def test_every_answer_has_the_headers_of_safety() -> None:
    middleware = AccessMiddleware(app, AccessPolicy(None, TEACHER))
    for host in ("localhost", "evil.example"):
        headers = send_request(middleware, host=host)[1]
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert "strict-transport-security" not in headers
        assert headers["cache-control"] == "no-cache"


def test_with_tls_browsers_keep_to_it() -> None:
    middleware = AccessMiddleware(app, AccessPolicy(PASSWORD, TEACHER))
    headers = send_request(middleware, "/", host="tutor.example", scheme="https")[1]
    assert headers["strict-transport-security"] == "max-age=31536000"
    # of a teacher's own machine, other programs use other ports
    headers = send_request(middleware, "/", host="localhost:8443", scheme="https")[1]
    assert "strict-transport-security" not in headers


def test_what_the_teacher_sees_is_not_cached() -> None:
    middleware = AccessMiddleware(app, AccessPolicy(PASSWORD, TEACHER))
    for token, status in ((TEACHER, 200), ("wrong", 401)):
        found = send_request(middleware, "/teacher/summary", authorization=f"Bearer {token}")
        assert (found[0], found[1]["cache-control"]) == (status, "no-store")


# -- behind a proxy, and pages of other origins ---------------------------------------------------


def test_an_asset_is_not_judged_by_its_origin() -> None:
    middleware = AccessMiddleware(app, AccessPolicy(PASSWORD, TEACHER))
    for path in ("/", "/teacher", "/page/main.js", "/healthz"):
        assert send_request(middleware, path, origin="https://tutor.example")[0] == 200
    for path in ("/tutor/config", "/teacher/summary", "/v1/models"):
        assert send_request(middleware, path, origin="https://tutor.example")[0] == 403


PROXY_HEADERS: list[tuple[dict[str, str], bool]] = [
    ({}, False),
    ({"x_forwarded_host": "tutor.example"}, True),
    ({"x_forwarded_host": "Tutor.Example:443"}, True),
    ({"x_forwarded_host": "tutor.example, inner.example"}, True),
    ({"x_forwarded_host": "inner.example, tutor.example"}, False),
    ({"x_forwarded_host": "tutor.example:80"}, False),
    ({"x_forwarded_host": "evil.example"}, False),
    ({"x_forwarded_host": ""}, False),
    ({"sec_fetch_site": "same-origin"}, True),
    ({"sec_fetch_site": "same-site"}, False),
    ({"sec_fetch_site": "cross-site"}, False),
    ({"host": "tutor.example"}, True),
    ({"host": "tutor.example:443"}, True),
]


@pytest.mark.parametrize(("headers", "is_own"), PROXY_HEADERS)
def test_behind_a_proxy_the_pages_origin_is_known(headers: dict[str, str], is_own: bool) -> None:
    proxied = AccessMiddleware(app, AccessPolicy(PASSWORD, TEACHER, behind_proxy=True))
    sent = {"origin": "https://tutor.example", "authorization": f"Bearer {PASSWORD}"}
    status, _, body = send_request(proxied, method="POST", **{**sent, **headers})
    assert status == (200 if is_own else 403)
    if not is_own:
        assert body["error"]["code"] == "foreign_origin"
        assert "proxy" in body["error"]["message"]
    direct = AccessMiddleware(app, AccessPolicy(PASSWORD, TEACHER))
    counts = is_own and "x_forwarded_host" not in headers
    status = send_request(direct, method="POST", **{**sent, **headers})[0]
    assert status == (200 if counts else 403)


SITE = "https://course.example"
PREFLIGHT = {"access_control_request_method": "POST", "method": "OPTIONS", "origin": SITE}


def test_a_named_origin_may_ask_and_no_other() -> None:
    policy = AccessPolicy(PASSWORD, TEACHER, allowed_origins=(SITE, "http://localhost:5173"))
    middleware = AccessMiddleware(app, policy)
    asked = {"access_control_request_headers": "authorization, x-stainless-os"}
    status, headers = send_preflight(middleware, **PREFLIGHT, **asked)
    assert status in (200, 204)
    assert headers["access-control-allow-origin"] == SITE
    assert "POST" in headers["access-control-allow-methods"]
    assert "authorization" in headers["access-control-allow-headers"]
    assert "x-stainless-os" in headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in headers
    assert headers["x-content-type-options"] == "nosniff"
    assert send_preflight(middleware, **{**PREFLIGHT, "access_control_request_method": "PUT"})[
        0
    ] in (400, 403)
    for secret, status in ((PASSWORD, 200), ("wrong", 401)):  # a page can read why
        found = send_request(
            middleware, method="POST", origin=SITE, authorization=f"Bearer {secret}"
        )
        assert found[0] == status
        assert found[1]["access-control-allow-origin"] == SITE
        assert "Origin" in found[1]["vary"]
    for origin in ("https://course.example.evil.example", "http://course.example", "null", "*"):
        status, headers = send_preflight(middleware, **{**PREFLIGHT, "origin": origin})
        assert status == 403
        assert "access-control-allow-origin" not in headers


def test_without_the_setting_no_preflight_is_granted() -> None:
    middleware = AccessMiddleware(app, AccessPolicy(None, TEACHER))
    status, headers = send_preflight(middleware, **PREFLIGHT)
    assert status == 403
    assert not [name for name in headers if name.startswith("access-control")]


def send_preflight(middleware: AccessMiddleware, **headers: str) -> tuple[int, dict[str, str]]:
    """Status and headers of a preflight request, whose body is text."""
    sent = send_request(middleware, as_text="1", **headers)
    return sent[0], sent[1]


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
