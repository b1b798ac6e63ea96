"""Who may ask: passwords and tokens, hosts and origins, sizes of requests, and headers of safety.

There are no cookies: what a page of another site sends carries no right of the student's.
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

from zephyr.tutor.door import LOOPBACK
from zephyr.tutor.refusal import Refusal

LARGEST = 2 << 20
"""Bytes that a request may have."""

PATIENCE = 30.0
"""Seconds within which more of a request must come."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_SAFETY = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_OPEN = ("/", "/teacher", "/healthz", "/tutor/config")
"""What anybody may read: pages, and whether a password is needed."""


class Guesses:
    """Wrong secrets of the last minute, by address.

    Ten are too many, and a hundred of all strangers together. An address from which the right one
    has come within an hour may be that of a whole school, and has `KNOWN` for itself.
    """

    MINUTE, HOUR = 60.0, 3600.0
    EACH, ALL, KNOWN = 10, 100, 300
    ADDRESSES = 4096
    """Addresses that are remembered."""

    def __init__(self) -> None:
        self._of: OrderedDict[str, deque[float]] = OrderedDict()
        self._strangers: deque[float] = deque(maxlen=self.ALL)
        self._right: OrderedDict[str, float] = OrderedDict()

    def refuse_too_many(self, address: str) -> None:
        """
        Raises:
            Refusal: there were too many.
        """
        known = self._is_known(address)
        own = self._of.get(address, deque())
        limits = [(own, self.KNOWN if known else self.EACH)]
        if not known:
            limits.append((self._strangers, self.ALL))
        now = time.monotonic()
        for times, most in limits:
            while times and times[0] < now - self.MINUTE:
                times.popleft()
            if len(times) >= most:
                wait = int(times[0] + self.MINUTE - now) + 1
                text = "too many wrong passwords; wait a minute"
                raise Refusal(429, text, code="too_many_guesses", retry_after=wait)

    def wrong(self, address: str) -> None:
        now = time.monotonic()
        self._of.setdefault(address, deque(maxlen=self.KNOWN)).append(now)
        self._forget_oldest(self._of, address)
        if not self._is_known(address):
            self._strangers.append(now)

    def right(self, address: str) -> None:
        self._right[address] = time.monotonic()
        self._forget_oldest(self._right, address)

    def _is_known(self, address: str) -> bool:
        return time.monotonic() - self._right.get(address, -self.HOUR) < self.HOUR

    def _forget_oldest(self, addresses: OrderedDict[str, Any], newest: str) -> None:
        addresses.move_to_end(newest)
        if len(addresses) > self.ADDRESSES:
            addresses.popitem(last=False)


@dataclass(frozen=True)
class Access:
    """`password` is the class's (None: open), `teacher` the teacher's token.

    `hosts` are the names by which an open server may be called: a page of another site that
    resolves its own name to this machine calls it by that name.
    """

    password: str | None
    teacher: str
    hosts: Collection[str] = LOOPBACK
    guesses: Guesses = field(default_factory=Guesses)

    def check(self, scope: Scope, headers: Headers) -> bool:
        """Whether the class's password was given, or none is needed.

        Raises:
            Refusal: the request may not be answered.
        """
        host = _host(f"//{headers.get('host', '')}")
        if self.password is None and host not in self.hosts:
            raise Refusal(403, f"this server is not called {host!r}", code="foreign_host")
        origin = headers.get("origin")
        if origin is not None and _place(origin) != headers.get("host", ""):
            raise Refusal(403, "a page of another site asks", code="foreign_origin")
        path = str(scope["path"])
        if path.startswith("/teacher/"):
            self._admit(self.teacher, scope, headers, "the teacher's token")
            return True
        anybody = path in _OPEN or path.startswith("/page/")
        if self.password is None:
            return True
        if anybody and "authorization" not in headers:
            return False
        self._admit(self.password, scope, headers, "the class's password")
        return True

    def _admit(self, secret: str, scope: Scope, headers: Headers, what: str) -> None:
        address = (scope.get("client") or ("unknown",))[0]
        self.guesses.refuse_too_many(address)
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not given:
            text = f"{what} is needed (Authorization: Bearer …)"
            raise Refusal(401, text, code="no_password")
        sent = given.encode("latin-1")  # as it was: a header holds bytes
        if not (_same(sent, secret) or _same(sent, self.teacher)):
            self.guesses.wrong(address)
            raise Refusal(401, f"{what} is another", code="wrong_password")
        self.guesses.right(address)


class Guard:
    """The outermost layer of the app: refuses what may not be answered, before it is read."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app, self.access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        safely = _with_headers(send)
        try:
            scope.setdefault("state", {})["admitted"] = self.access.check(scope, headers)
            length = headers.get("content-length", "0")
            if not length.isdecimal() or int(length) > LARGEST:
                raise _too_large()
        except Refusal as refusal:
            await refusal.response()(scope, receive, safely)
            return
        body = _Body(receive)

        async def unless_refused(message: Message) -> None:
            if body.refusal is None:  # else the app tells that it could not read, not why
                await safely(message)

        try:
            await self.app(scope, body.receive, unless_refused)
        except Refusal:
            if body.refusal is None:
                raise
        if body.refusal is not None:
            await body.refusal.response()(scope, receive, safely)


class _Body:
    """A request's body on its way in: not endless, and not for ever."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._read = 0
        self._whole = False
        self.refusal: Refusal | None = None

    async def receive(self) -> Message:
        """The next message of a request; once its body is whole, when the client goes away.

        Raises:
            Refusal: there is too much of it, or it takes too long.
        """
        if self._whole:
            return await self._receive()
        try:
            async with asyncio.timeout(PATIENCE):
                message = await self._receive()
        except TimeoutError:
            text = f"no more of the request has come for {PATIENCE:.0f} seconds"
            self.refusal = Refusal(408, text, code="too_slow")
            raise self.refusal from None
        self._read += len(message.get("body", b""))
        self._whole = not message.get("more_body", False)
        if self._read > LARGEST:
            self.refusal = _too_large()
            raise self.refusal
        return message


def _too_large() -> Refusal:
    return Refusal(413, f"a request may have {LARGEST:,} bytes", code="too_large")


def _with_headers(send: Send) -> Send:
    """Adds the headers of safety, and has pages asked for again: the server may be another now."""

    async def safely(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers.setdefault("Cache-Control", "no-cache")
            for name, value in _SAFETY.items():
                headers[name] = value
        await send(message)

    return safely


def _host(location: str) -> str:
    try:
        return urlsplit(location).hostname or ""
    except ValueError:
        return ""


def _place(location: str) -> str | None:
    """Host and port of a location; None where it is none."""
    try:
        return urlsplit(location).netloc
    except ValueError:
        return None


def _same(given: bytes, secret: str) -> bool:
    """Compares in a time that says nothing of where two secrets differ, nor how long they are."""
    return hmac.compare_digest(_digest(given), _digest(secret.encode()))


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def teacher_token(path: Path) -> str:
    """The token in a file, made there the first time, which its owner alone may read."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(24) + "\n")
    return path.read_text(encoding="utf-8").strip()
