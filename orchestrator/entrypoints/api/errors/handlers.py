"""Makes the public app answer every error with a problem. public_app.py installs it."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from orchestrator.domain import errors
from orchestrator.entrypoints.api import methods
from orchestrator.entrypoints.api.errors import problems

_CODES: Mapping[int, str] = {
    400: "bad_request",
    404: "not_found",
    405: "method_not_allowed",
    413: "body_too_large",
    415: "unsupported_media_type",
}


def install(app: FastAPI) -> None:
    """Make this app answer every error with a problem."""
    for error_type, handler in HANDLERS.items():
        app.add_exception_handler(error_type, handler)


async def _handle_spawn_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, errors.SpawnError)
    return problems.from_error(error)


async def _handle_invalid_input(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    # The second part is the input. Those after it say where in it, in words of the request.
    place = first["loc"][1:2]
    field = place[0] if place and isinstance(place[0], str) else "body"
    return problems.problem(422, "invalid_input", f"{field}: {first['msg']}", field=field)


async def _handle_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = _CODES.get(error.status_code, "http_error")
    members = {"field": "body"} if error.status_code == 400 else {}  # it can't be parsed
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = ", ".join(methods.allowed(request))
    return problems.problem(error.status_code, code, str(error.detail), headers=headers, **members)


async def _handle_unexpected(_: Request, __: Exception) -> Response:
    """The answer alone. The error goes on to `failures`, which writes it down."""
    return problems.problem(500, "internal", "something went wrong on our side; the log says what")


HANDLERS = {
    errors.SpawnError: _handle_spawn_error,
    RequestValidationError: _handle_invalid_input,
    HTTPException: _handle_http_error,
    Exception: _handle_unexpected,
}
