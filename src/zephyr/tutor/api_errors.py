"""API errors in OpenAI's JSON format, and the exception handlers that send them."""

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from zephyr.errors import ZephyrError
from zephyr.tutor.answer_stream import GenerationError
from zephyr.tutor.scheduler import QueueFullError
from zephyr.tutor.serving import ContextLengthError
from zephyr.tutor.validation_errors import describe_errors

RETRY_AFTER_SECONDS = 2
"""Retry-After header of a full queue (429), in seconds."""


class ApiError(Exception):
    """An HTTP error response; `code` and `param` are for programs, the message for people."""

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
    """The JSON body of an error in OpenAI's format."""
    kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    kind = "server_error" if status >= 500 else kinds.get(status, "invalid_request_error")
    return {"error": {"message": message, "type": kind, "code": code, "param": param}}


def queue_full() -> ApiError:
    """The rate-limit error (429) of a full queue."""
    text = "as many questions wait as may; try again in a moment"
    return ApiError(429, text, code="rate_limit_exceeded", retry_after=RETRY_AFTER_SECONDS)


def to_api_error(error: Exception) -> ApiError:
    """Maps an exception to the API error that is sent for it."""
    match error:
        case ApiError():
            return error
        case QueueFullError():
            return queue_full()
        case ContextLengthError():
            return ApiError(400, str(error), code="context_length_exceeded", param=error.param)
        case ZephyrError():
            return ApiError(400, str(error))
        case GenerationError():
            return ApiError(503, "the answer broke off; try again", code="broken")
    raise error


def add_error_handlers(app: FastAPI) -> None:
    """Registers exception handlers so that every error has OpenAI's format."""

    async def handle_known(request: Request, error: Exception) -> JSONResponse:
        return to_api_error(error).response()

    async def handle_validation_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        found = describe_errors(error.errors(), error.body)
        return ApiError(
            400,
            sanitize_text(found.message),
            code=found.code,
            param=None if found.param is None else sanitize_text(found.param),
        ).response()

    async def handle_http_exception(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        body = error_body(error.status_code, str(error.detail))
        return JSONResponse(body, error.status_code, error.headers)

    async def handle_unexpected(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse(error_body(500, "this is a defect of Zephyr; its log says more"), 500)

    app.add_exception_handler(Exception, handle_unexpected)
    for kind in (ApiError, QueueFullError, GenerationError, ZephyrError):
        app.add_exception_handler(kind, handle_known)
    app.add_exception_handler(RequestValidationError, handle_validation_error)
    app.add_exception_handler(HTTPException, handle_http_exception)


def sanitize_text(text: str) -> str:
    """Replaces what UTF-8 can't encode, and truncates to 500 characters."""
    return text.encode("utf-8", errors="replace").decode()[:500]


ERROR_RESPONSES: dict[int | str, dict[str, Any]] = {
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
"""Error responses as described in the OpenAPI schema."""


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI `responses` of a route: these statuses, and those of every route."""
    return {status: ERROR_RESPONSES[status] for status in (400, 401, 403, 408, 413, 429, *statuses)}
