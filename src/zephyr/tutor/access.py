"""Access control (ASGI middleware): bearer tokens, login rate limit, host and origin, body limits.

There are no cookies, so that requests from pages of other sites are never authenticated (CSRF).
"""

import asyncio
import hashlib
import hmac
import os
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from zephyr.tutor.api_errors import ApiError
from zephyr.tutor.listen import LOOPBACK

MAX_BODY_BYTES = 2 << 20
"""Largest request body, in bytes."""

BODY_TIMEOUT_SECONDS = 30.0
"""Timeout, in seconds, for the next chunk of a request body."""

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_SECURITY_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_PUBLIC_PATHS = ("/", "/teacher", "/healthz", "/tutor/config")
"""Paths that need no authentication: pages, health check, and the public config."""


class LoginRateLimiter:
    """Rate limit on failed logins (brute force): failures of the last minute by client address.

    An address may fail ten times, all unknown addresses together a hundred times. An address with a
    successful login within the last hour may be that of a whole school (NAT), and has
    `MAX_PER_KNOWN_ADDRESS`.
    """

    MINUTE, HOUR = 60.0, 3600.0
    MAX_PER_ADDRESS, MAX_OF_UNKNOWN, MAX_PER_KNOWN_ADDRESS = 10, 100, 300
    MAX_ADDRESSES = 4096
    """Maximum number of addresses that are remembered."""

    def __init__(self) -> None:
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()
        self._unknown_failures: deque[float] = deque(maxlen=self.MAX_OF_UNKNOWN)
        self._last_success: OrderedDict[str, float] = OrderedDict()

    def check(self, address: str) -> None:
        """Checks the rate limit of an address.

        Raises:
            ApiError: there were too many failed logins (429).
        """
        is_known = self._is_known(address)
        failures = self._failures.get(address, deque())
        limits = [(failures, self.MAX_PER_KNOWN_ADDRESS if is_known else self.MAX_PER_ADDRESS)]
        if not is_known:
            limits.append((self._unknown_failures, self.MAX_OF_UNKNOWN))
        now = time.monotonic()
        for times, limit in limits:
            while times and times[0] < now - self.MINUTE:
                times.popleft()
            if len(times) >= limit:
                wait = int(times[0] + self.MINUTE - now) + 1
                text = "too many wrong passwords; wait a minute"
                raise ApiError(429, text, code="too_many_guesses", retry_after=wait)

    def record_failure(self, address: str) -> None:
        """Records a failed login of an address."""
        now = time.monotonic()
        self._failures.setdefault(address, deque(maxlen=self.MAX_PER_KNOWN_ADDRESS)).append(now)
        self._forget_oldest(self._failures, address)
        if not self._is_known(address):
            self._unknown_failures.append(now)

    def record_success(self, address: str) -> None:
        """Records a successful login of an address."""
        self._last_success[address] = time.monotonic()
        self._forget_oldest(self._last_success, address)

    def _is_known(self, address: str) -> bool:
        return time.monotonic() - self._last_success.get(address, -self.HOUR) < self.HOUR

    def _forget_oldest(self, addresses: OrderedDict[str, Any], newest: str) -> None:
        addresses.move_to_end(newest)
        if len(addresses) > self.MAX_ADDRESSES:
            addresses.popitem(last=False)


@dataclass(frozen=True)
class AccessPolicy:
    """Authentication and authorization: the class's `password` (None: open), `teacher_token`.

    `allowed_hosts` are the Host headers that an open server accepts, against DNS rebinding: a page
    of another site whose name resolves to this machine sends that name.
    """

    password: str | None
    teacher_token: str
    allowed_hosts: Collection[str] = LOOPBACK
    login_limiter: LoginRateLimiter = field(default_factory=LoginRateLimiter)

    def authorize(self, scope: Scope, headers: Headers) -> bool:
        """Authorizes a request; False if it is public and came without a bearer token.

        Raises:
            ApiError: the request is not authorized.
        """
        host = _hostname(f"//{headers.get('host', '')}")
        if self.password is None and host not in self.allowed_hosts:
            raise ApiError(403, f"this server is not called {host!r}", code="foreign_host")
        origin = headers.get("origin")
        if origin is not None and _netloc(origin) != headers.get("host", ""):
            raise ApiError(403, "a page of another site asks", code="foreign_origin")
        path = str(scope["path"])
        if path.startswith("/teacher/"):
            self._authenticate(self.teacher_token, scope, headers, "the teacher's token")
            return True
        is_public = path in _PUBLIC_PATHS or path.startswith("/page/")
        if self.password is None:
            return True
        if is_public and "authorization" not in headers:
            return False
        self._authenticate(self.password, scope, headers, "the class's password")
        return True

    def _authenticate(self, secret: str, scope: Scope, headers: Headers, secret_name: str) -> None:
        """Checks the bearer token against a secret (or the teacher's), rate-limited."""
        address = (scope.get("client") or ("unknown",))[0]
        self.login_limiter.check(address)
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            text = f"{secret_name} is needed (Authorization: Bearer …)"
            raise ApiError(401, text, code="no_password")
        token_bytes = token.encode("latin-1")  # the original bytes of the header
        if not (
            _is_equal_secret(token_bytes, secret)
            or _is_equal_secret(token_bytes, self.teacher_token)
        ):
            self.login_limiter.record_failure(address)
            raise ApiError(401, f"{secret_name} is another", code="wrong_password")
        self.login_limiter.record_success(address)


class AccessMiddleware:
    """The outermost ASGI middleware: rejects unauthorized requests before their body is read."""

    def __init__(self, app: ASGIApp, access: AccessPolicy) -> None:
        self.app, self.policy = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        send_with_headers = _with_security_headers(send)
        try:
            scope.setdefault("state", {})["admitted"] = self.policy.authorize(scope, headers)
            length = headers.get("content-length", "0")
            if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
                raise _body_too_large()
        except ApiError as error:
            await error.response()(scope, receive, send_with_headers)
            return
        body = _LimitedBody(receive)

        async def send_unless_rejected(message: Message) -> None:
            if body.error is None:  # otherwise the app's error would hide the reason
                await send_with_headers(message)

        try:
            await self.app(scope, body.receive, send_unless_rejected)
        except ApiError:
            if body.error is None:
                raise
        if body.error is not None:
            await body.error.response()(scope, receive, send_with_headers)


class _LimitedBody:
    """The receive channel of a request, with a limit on its body's size and a timeout."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._num_bytes = 0
        self._is_complete = False
        self.error: ApiError | None = None

    async def receive(self) -> Message:
        """The next ASGI message; once the body is complete, waits for the disconnect.

        Raises:
            ApiError: the body is too large (413), or it takes too long (408).
        """
        if self._is_complete:
            return await self._receive()
        try:
            async with asyncio.timeout(BODY_TIMEOUT_SECONDS):
                message = await self._receive()
        except TimeoutError:
            text = f"no more of the request has come for {BODY_TIMEOUT_SECONDS:.0f} seconds"
            self.error = ApiError(408, text, code="too_slow")
            raise self.error from None
        self._num_bytes += len(message.get("body", b""))
        self._is_complete = not message.get("more_body", False)
        if self._num_bytes > MAX_BODY_BYTES:
            self.error = _body_too_large()
            raise self.error
        return message


def _body_too_large() -> ApiError:
    return ApiError(413, f"a request may have {MAX_BODY_BYTES:,} bytes", code="too_large")


def _with_security_headers(send: Send) -> Send:
    """Adds security headers and Cache-Control (no-cache) to a response."""

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers.setdefault("Cache-Control", "no-cache")
            for name, value in _SECURITY_HEADERS.items():
                headers[name] = value
        await send(message)

    return send_with_headers


def _hostname(location: str) -> str:
    try:
        return urlsplit(location).hostname or ""
    except ValueError:
        return ""


def _netloc(location: str) -> str | None:
    """Host and port (netloc) of a URL; None where it is not a URL."""
    try:
        return urlsplit(location).netloc
    except ValueError:
        return None


def _is_equal_secret(candidate: bytes, secret: str) -> bool:
    """Constant-time comparison of a secret (no timing leak of content or length)."""
    return hmac.compare_digest(_digest(candidate), _digest(secret.encode()))


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def load_teacher_token(path: Path) -> str:
    """Loads the teacher's bearer token from a file, or creates it (readable by the owner only)."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(24) + "\n")
    return path.read_text(encoding="utf-8").strip()
