"""Turns errors into RFC 9457 problem details. The only table from our errors to HTTP statuses.

Both apps install its handlers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.responses import Response

from orchestrator.domain import errors
from orchestrator.slim import structlog

log = structlog.get_logger()

# The first match wins, so subclasses stand before their base class.
STATUS_OF: Sequence[tuple[type[errors.SpawnError], int]] = (
    (errors.InvalidInput, 422),
    (errors.AmbiguousCookie, 400),
    (errors.Unauthorized, 401),
    (errors.BudgetExhausted, 402),
    (errors.Forbidden, 403),
    (errors.NotFound, 404),
    (errors.Conflict, 409),
    (errors.TooLarge, 413),
    (errors.LimitReached, 429),
    (errors.Temporary, 503),
    (errors.SpawnError, 500),
)
_TITLES: Mapping[int, str] = {
    400: "Bad request",
    401: "Not authenticated",
    402: "Budget used up",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict",
    413: "Too large",
    415: "Unsupported media type",
    421: "Misdirected request",
    422: "Invalid input",
    429: "Too many",
    500: "Internal error",
    503: "Not available now",
}
_CODES: Mapping[int, str] = {
    400: "bad_request",
    404: "not_found",
    405: "method_not_allowed",
    413: "body_too_large",
    415: "unsupported_media_type",
}


def status_of(error: errors.SpawnError) -> int:
    return next(status for error_type, status in STATUS_OF if isinstance(error, error_type))


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    **members: Any,
) -> JSONResponse:
    """A problem+json response. `members` are added to the standard ones."""
    return JSONResponse(
        {
            "type": "about:blank",
            "title": _TITLES.get(status, "Error"),
            "status": status,
            "code": code,
            "detail": detail,
            **members,
        },
        status_code=status,
        headers=dict(headers or {}),
        media_type="application/problem+json",
    )


def from_error(error: errors.SpawnError) -> JSONResponse:
    """One of our errors as a response. Temporary errors say when to retry."""
    status = status_of(error)
    headers = {}
    if isinstance(error, errors.Temporary):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return problem(status, error.code, str(error), headers=headers, **error.detail)


def install(app: FastAPI) -> None:
    """Make this app answer every error with a problem."""
    for error_type, handler in HANDLERS.items():
        app.add_exception_handler(error_type, handler)


async def _handle_spawn_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, errors.SpawnError)
    return from_error(error)


async def _handle_invalid_input(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"][1:]) or "body"
    return problem(422, "invalid_input", f"{field}: {first['msg']}", field=field)


async def _handle_http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = _CODES.get(error.status_code, "http_error")
    return problem(error.status_code, code, str(error.detail), headers=error.headers)


async def _handle_unexpected(request: Request, error: Exception) -> Response:
    log.error("request_failed", path=request.url.path, exc_info=error)
    return problem(500, "internal", "something went wrong on our side; the log says what")


HANDLERS = {
    errors.SpawnError: _handle_spawn_error,
    RequestValidationError: _handle_invalid_input,
    HTTPException: _handle_http_error,
    Exception: _handle_unexpected,
}
