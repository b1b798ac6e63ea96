"""What a request is answered with that can't be served: OpenAI's form of an error."""

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from zephyr.errors import ZephyrError
from zephyr.tutor.scheduler import Broken, Busy

WAIT = 2
"""Seconds after which a full queue may be tried again."""


class Refusal(Exception):
    """A request is refused; `code` and `param` are for programs, the message for people."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = error_body(status, message, code=code, param=param)
        self.headers = {} if retry_after is None else {"Retry-After": str(retry_after)}

    def response(self) -> JSONResponse:
        return JSONResponse(self.body, self.status, self.headers)


def error_body(
    status: int, message: str, *, code: str | None = None, param: str | None = None
) -> dict[str, Any]:
    """The JSON of an error, which OpenAI's own clients read."""
    kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    kind = "server_error" if status >= 500 else kinds.get(status, "invalid_request_error")
    return {"error": {"message": message, "type": kind, "code": code, "param": param}}


def too_busy() -> Refusal:
    text = "as many questions wait as may; try again in a moment"
    return Refusal(429, text, code="busy", retry_after=WAIT)


def refusal_of(error: Exception) -> Refusal:
    """What is told of an error that a request met."""
    match error:
        case Refusal():
            return error
        case Busy():
            return too_busy()
        case ZephyrError():
            return Refusal(400, str(error))
        case Broken():
            return Refusal(503, "the answer broke off; try again", code="broken")
    raise error


def answer_errors(app: FastAPI) -> None:
    """Lets an app tell every error in this form."""

    async def known(request: Request, error: Exception) -> JSONResponse:
        return refusal_of(error).response()

    async def invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        more = len(error.errors()) - 1
        text = f"{where}: {first['msg']}" if where else str(first["msg"])
        text += f" (and {more} more)" if more else ""
        return Refusal(400, printable(text), code="invalid", param=printable(where)).response()

    async def other(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        body = error_body(error.status_code, str(error.detail))
        return JSONResponse(body, error.status_code, error.headers)

    async def broken(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse(error_body(500, "this is a defect of Zephyr; its log says more"), 500)

    app.add_exception_handler(Exception, broken)
    for kind in (Refusal, Busy, Broken, ZephyrError):
        app.add_exception_handler(kind, known)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, other)


def printable(text: str) -> str:
    """A text as UTF-8 can hold it, not endlessly long."""
    return text.encode("utf-8", errors="replace").decode()[:500]


ERRORS: dict[int | str, dict[str, Any]] = {
    status: {
        "description": text,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["error"],
                    "properties": {
                        "error": {
                            "type": "object",
                            "required": ["message", "type", "code", "param"],
                            "properties": {
                                "message": {"type": "string"},
                                "type": {"type": "string"},
                                "code": {"type": ["string", "null"]},
                                "param": {"type": ["string", "null"]},
                            },
                        }
                    },
                }
            }
        },
    }
    for status, text in {
        400: "The request is not one that can be answered.",
        401: "The password or token is missing or wrong.",
        403: "The request comes from another site, or the course does not allow it.",
        404: "There is no such model or thing.",
        408: "The request did not come to its end.",
        409: "It was done before, or something else has to be done first.",
        413: "The request is too large.",
        429: "Too many requests; Retry-After says when to try again.",
        503: "The answer broke off, or the server is being stopped.",
    }.items()
}
"""How errors are described in the app's OpenAPI document."""


def refused(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The description of these errors, and of those that every route may give."""
    return {status: ERRORS[status] for status in (400, 401, 403, 408, 413, 429, *statuses)}
