"""Access control (ASGI middleware): bearer tokens, host and origin, body limits, headers.

There are no cookies, so that requests from pages of other sites are never authenticated (CSRF).
"""

import asyncio
import hashlib
import hmac
import os
import secrets
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from zephyr.tutor.api_errors import ApiError
from zephyr.tutor.listen import LOOPBACK
from zephyr.tutor.login_limiter import LoginRateLimiter

MAX_BODY_BYTES = 2 << 20
"""Largest request body, in bytes."""

BODY_TIMEOUT_SECONDS = 30.0
"""Deadline, in seconds, for a request's whole body."""

MAX_ECHO_LENGTH = 60
"""Most characters of a host or an origin that an error repeats."""

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
_ASSET_PATHS = ("/", "/teacher", "/healthz")
"""Paths beside /page/ that hold nothing of a class: no password, and not judged by origin."""


@dataclass(frozen=True)
class AccessPolicy:
    """Authentication and authorization: the class's `password` (None: open), `teacher_token`.

    `allowed_hosts` are the Host headers that an open server accepts, against DNS rebinding: a page
    of another site whose name resolves to this machine sends that name. `allowed_origins` are the
    other sites whose pages may ask. `behind_proxy`: X-Forwarded-Host is the host that the client
    asked; a page of another site can't set it without a preflight request, which is refused.
    """

    password: str | None
    teacher_token: str
    allowed_hosts: Collection[str] = LOOPBACK
    allowed_origins: Collection[str] = ()
    behind_proxy: bool = False
    login_limiter: LoginRateLimiter = field(default_factory=LoginRateLimiter)

    async def authorize(self, scope: Scope, headers: Headers) -> bool:
        """Authorizes a request; False if it is public and came without a bearer token.

        Raises:
            ApiError: the request is not authorized.
        """
        host = _hostname(f"//{headers.get('host', '')}")
        if self.password is None and host not in self.allowed_hosts:
            text = f"this server is not called {_shorten(host)!r}"
            raise ApiError(403, text, code="foreign_host")
        path = str(scope["path"])
        is_asset = path in _ASSET_PATHS or path.startswith("/page/")
        if not is_asset:
            self._check_origin(headers)
        if path.startswith("/teacher/"):
            await self._authenticate(self.teacher_token, scope, headers, "the teacher's token")
            return True
        if self.password is None:
            return True
        if (is_asset or path == "/tutor/config") and "authorization" not in headers:
            return False
        await self._authenticate(self.password, scope, headers, "the class's password")
        return True

    def _check_origin(self, headers: Headers) -> None:
        """Checks that no page of another site asks, unless it is one of `allowed_origins`.

        Sec-Fetch-Site is the browser's own judgement, which no script can set; it stands where a
        proxy puts its own name in Host.

        Raises:
            ApiError: the page is of another site (403).
        """
        origin = headers.get("origin")
        if origin is None or origin in self.allowed_origins:
            return
        if headers.get("sec-fetch-site") == "same-origin":
            return
        host = headers.get("host", "")
        if self.behind_proxy:
            host = headers.get("x-forwarded-host", host).split(",")[0].strip()
        default_port = ":443" if origin.startswith("https:") else ":80"
        if not host or _netloc(origin) != host.lower().removesuffix(default_port):
            text = f"a page of another site asks ({_shorten(origin)!r} asks {_shorten(host)!r})"
            todo = "the proxy must pass on the host, or" if self.behind_proxy else "to allow it,"
            text += f"; {todo} `origins` of tutor.yaml must name the site"
            raise ApiError(403, text, code="foreign_origin")

    async def _authenticate(
        self, secret: str, scope: Scope, headers: Headers, secret_name: str
    ) -> None:
        """Checks the bearer token against a secret (or the teacher's), rate-limited."""
        address = (scope.get("client") or ("unknown",))[0]
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            text = f"{secret_name} is needed (Authorization: Bearer …)"
            raise _unauthorized(text, "no_password")
        await self.login_limiter.wait_turn(address)
        token_bytes = token.encode("latin-1")  # the original bytes of the header
        if not (
            _is_equal_secret(token_bytes, secret)
            or _is_equal_secret(token_bytes, self.teacher_token)
        ):
            is_limited = self.login_limiter.is_limited(address)
            self.login_limiter.record_failure(address)
            if is_limited:
                raise self.login_limiter.too_many()
            raise _unauthorized(f"{secret_name} is another", "wrong_password")
        self.login_limiter.record_success(address)


class AccessMiddleware:
    """The outermost ASGI middleware: rejects unauthorized requests before their body is read.

    It answers the preflight requests of allowed origins (CORS), and HEAD where there is GET.
    """

    def __init__(self, app: ASGIApp, access: AccessPolicy) -> None:
        self.app, self.policy = app, access
        self._cors = CORSMiddleware(
            self._respond,
            allow_origins=access.allowed_origins,
            allow_methods=("GET", "HEAD", "POST", "DELETE"),
            allow_headers=("*",),
            allow_private_network=True,
            expose_headers=("Retry-After",),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        is_allowed_origin = Headers(scope=scope).get("origin") in self.policy.allowed_origins
        send = _with_security_headers(scope, send)
        await (self._cors if is_allowed_origin else self._respond)(scope, receive, send)

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        try:
            _check_length(headers)
            admitted = await self.policy.authorize(scope, headers)
        except ApiError as error:
            await error.response()(scope, receive, send)
            return
        scope.setdefault("state", {})["admitted"] = admitted
        if scope["method"] == "HEAD":  # routes know GET alone
            scope, send = {**scope, "method": "GET"}, _without_body(send)
        body = _LimitedBody(receive)

        async def send_unless_rejected(message: Message) -> None:
            if body.error is None:  # otherwise the app's error would hide the reason
                await send(message)

        try:
            await self.app(scope, body.receive, send_unless_rejected)
        except ApiError:
            if body.error is None:
                raise
        if body.error is not None:
            await body.error.response()(scope, receive, send)


class _LimitedBody:
    """The receive channel of a request, with a limit on its body's size and a deadline."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._deadline = asyncio.get_running_loop().time() + BODY_TIMEOUT_SECONDS
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
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            text = f"the request has not come to its end in {BODY_TIMEOUT_SECONDS:.0f} seconds"
            self.error = _closing(ApiError(408, text, code="too_slow"))
            raise self.error from None
        self._num_bytes += len(message.get("body", b""))
        self._is_complete = not message.get("more_body", False)
        if self._num_bytes > MAX_BODY_BYTES:
            self.error = _body_too_large()
            raise self.error
        return message


def _check_length(headers: Headers) -> None:
    """Checks what a request says of its body's length, before it is read.

    Raises:
        ApiError: it is too large (413), or said in two ways (400), by which two servers may take
            one request for two (request smuggling).
    """
    length = headers.get("content-length", "0")
    if "transfer-encoding" in headers and "content-length" in headers:
        text = "Content-Length and Transfer-Encoding exclude each other"
        raise _closing(ApiError(400, text, code="two_lengths"))
    if not (length.isascii() and length.isdecimal()) or int(length[:20]) > MAX_BODY_BYTES:
        raise _body_too_large()


def _body_too_large() -> ApiError:
    return _closing(ApiError(413, f"a request may have {MAX_BODY_BYTES:,} bytes", code="too_large"))


def _closing(error: ApiError) -> ApiError:
    """An error after which the connection is closed: the rest of the request is not read."""
    error.headers["Connection"] = "close"
    return error


def _unauthorized(text: str, code: str) -> ApiError:
    error = ApiError(401, text, code=code)
    error.headers["WWW-Authenticate"] = "Bearer"
    return error


def _with_security_headers(scope: Scope, send: Send) -> Send:
    """Adds security headers and Cache-Control to a response: no-store for the teacher's data."""
    security_headers = dict(_SECURITY_HEADERS)
    host = _hostname(f"//{Headers(scope=scope).get('host', '')}")
    if scope.get("scheme") == "https" and host not in LOOPBACK:
        security_headers["Strict-Transport-Security"] = "max-age=31536000"
    is_teachers = str(scope["path"]).startswith("/teacher/")

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers.setdefault("Cache-Control", "no-store" if is_teachers else "no-cache")
            for name, value in security_headers.items():
                headers[name] = value
        await send(message)

    return send_with_headers


def _without_body(send: Send) -> Send:
    """Sends a response's head alone, as for HEAD."""

    async def send_head(message: Message) -> None:
        if message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await send(message)

    return send_head


def _hostname(location: str) -> str:
    try:
        return urlsplit(location).hostname or ""
    except ValueError:
        return ""


def _netloc(origin: str) -> str | None:
    """Host and port (netloc) of an origin in lower case; None where it is not one."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None


def _shorten(name: str) -> str:
    """A name as it is echoed: its first characters."""
    return name if len(name) <= MAX_ECHO_LENGTH else name[:MAX_ECHO_LENGTH] + "…"


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
