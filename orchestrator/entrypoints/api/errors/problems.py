"""Turns errors into RFC 9457 problem details. The only table from our errors to HTTP statuses.

Both apps use it. handlers.py has those of the public app.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.responses import JSONResponse

from orchestrator.domain import errors

# The first match wins, so subclasses stand before their base class.
STATUS_OF: Sequence[tuple[type[errors.SpawnError], int]] = (
    (errors.InvalidInput, 422),
    (errors.AmbiguousCookie, 400),
    (errors.Unauthorized, 401),
    (errors.BudgetExhausted, 402),
    (errors.NoCredit, 402),
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


def status_of(error: errors.SpawnError) -> int:
    return next(status for error_type, status in STATUS_OF if isinstance(error, error_type))


class _Problem(JSONResponse):
    """A problem in ASCII. What it repeats of a request may have characters that UTF-8 lacks."""

    media_type = "application/problem+json"

    def render(self, content: Any) -> bytes:
        return json.dumps(content, separators=(",", ":")).encode("ascii")


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    **members: Any,
) -> JSONResponse:
    """A problem+json response. `members` are added to the standard ones."""
    return _Problem(
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
