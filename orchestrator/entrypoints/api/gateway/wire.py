"""The Messages API at the HTTP level: error bodies, and the headers that we forward.

The whole package uses it.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from starlette.requests import HTTPConnection, Request

from orchestrator.domain import errors

BODY_MAX_BYTES = 32 * 1024**2  # the Messages API's own limit

# Credentials, cookies and hop-by-hop headers are not forwarded. What a client says about itself is.
_FORWARDED_UP = frozenset({"content-type", "accept", "user-agent", "x-app"})
_FORWARDED_UP_PREFIXES = ("anthropic-", "x-stainless-")
_FORWARDED_DOWN = frozenset(
    {"content-type", "request-id", "retry-after", "retry-after-ms"} | {"x-should-retry"}
)
_FORWARDED_DOWN_PREFIXES = ("anthropic-",)
# The request headers that change the answer.
VERSION_HEADERS = ("anthropic-version", "anthropic-beta")

# The first match wins, so subclasses stand before their base class.
_ERRORS: Sequence[tuple[type[errors.SpawnError], tuple[int, str]]] = (
    (errors.BudgetExhausted, (402, "billing_error")),
    (errors.NoCredit, (402, "billing_error")),
    (errors.InvalidInput, (400, "invalid_request_error")),
    (errors.Unauthorized, (401, "authentication_error")),
    (errors.Forbidden, (403, "permission_error")),
    (errors.NotFound, (404, "not_found_error")),
    (errors.TooLarge, (413, "request_too_large")),
    (errors.LimitReached, (429, "rate_limit_error")),
    (errors.Temporary, (503, "api_error")),
    (errors.SpawnError, (500, "api_error")),
)


@dataclass(frozen=True, kw_only=True)
class Head:
    """Status and headers of a response."""

    status: int
    headers: Mapping[str, str]  # names in lower case


@dataclass(frozen=True, kw_only=True)
class ErrorResponse:
    """A complete response that reports an error."""

    head: Head
    body: bytes
    code: str = ""  # our error code; "" when the error is the provider's


PING = b'event: ping\ndata: {"type": "ping"}\n\n'
STREAM_HEAD = Head(status=200, headers={"content-type": "text/event-stream; charset=utf-8"})


def frames(events: Iterable[Mapping[str, Any]]) -> bytes:
    """Events of a stream, as bytes."""
    return b"".join(
        f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events
    )


def error_event(error: ErrorResponse) -> bytes:
    """The error of a response that has begun as a stream."""
    return b"event: error\ndata: " + error.body.strip() + b"\n\n"


def error_response(
    status: int, kind: str, message: str, *, code: str, headers: Mapping[str, str], **detail: object
) -> ErrorResponse:
    """An error in the API's own shape, so that its clients understand it. We add `code`."""
    request_id = f"req_{secrets.token_hex(12)}"
    error = {"type": kind, "message": message, "code": code, **detail}
    body = {"type": "error", "error": error, "request_id": request_id}
    all_headers = {"content-type": "application/json", "request-id": request_id, **headers}
    return ErrorResponse(
        head=Head(status=status, headers=all_headers), body=json.dumps(body).encode(), code=code
    )


def error_response_for(error: errors.SpawnError) -> ErrorResponse:
    """Translate one of our errors into the API's terms."""
    status, kind = next(entry for error_type, entry in _ERRORS if isinstance(error, error_type))
    headers = {}
    if isinstance(error, errors.Temporary):
        headers["retry-after"] = str(max(1, round(error.retry_after_s)))
    else:
        headers["x-should-retry"] = "false"
    return error_response(
        status, kind, str(error), code=error.code, headers=headers, **error.detail
    )


def http_error(status: int, message: str, headers: Mapping[str, str]) -> ErrorResponse:
    """An error of HTTP alone: a path that isn't offered, or a method."""
    kind = {404: "not_found_error", 405: "invalid_request_error"}.get(status, "api_error")
    code = {404: "not_found", 405: "method_not_allowed"}.get(status, "internal")
    return error_response(status, kind, message, code=code, headers=headers)


def model_info(name: str) -> Mapping[str, Any]:
    """One entry of GET /v1/models. We don't know its date: the API then gives the epoch."""
    return {
        "type": "model",
        "id": name,
        "display_name": name,
        "created_at": "1970-01-01T00:00:00Z",
        "lifecycle": "active",
    }


def model_page(models: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """All of them on one page."""
    return {
        "data": models,
        "has_more": False,
        "first_id": models[0]["id"] if models else None,
        "last_id": models[-1]["id"] if models else None,
    }


def headers_for_provider(request: Request) -> dict[str, str]:
    """The client's headers that we forward to a provider.

    Raises errors.InvalidInput for a value that no HTTP client of ours could send.
    """
    forwarded = {
        name: value
        for name, value in request.headers.items()
        if name in _FORWARDED_UP or name.startswith(_FORWARDED_UP_PREFIXES)
    }
    for name, value in forwarded.items():
        if not (value.isascii() and value.isprintable()):
            raise errors.InvalidInput(
                f"the header {name} may hold printable ASCII characters only", field=name
            )
    # A compressor would hold events back, and we could not read the usage in them.
    return {**forwarded, "accept-encoding": "identity"}


def headers_for_client(headers: Mapping[str, str]) -> dict[str, str]:
    """The provider's headers that we forward to a client. Adds a request id if there is none."""
    given = {name.lower(): value for name, value in headers.items()}
    forwarded = {
        name: value
        for name, value in given.items()
        if name in _FORWARDED_DOWN or name.startswith(_FORWARDED_DOWN_PREFIXES)
    }
    if seconds := _seconds_until(given.get("retry-after", ""), given.get("date", "")):
        forwarded["retry-after"] = seconds
    return {"request-id": f"req_{secrets.token_hex(12)}", **forwarded}


def _seconds_until(at: str, now: str) -> str:
    """How long a server asks to wait that names a time, by its own clock; "" if it doesn't."""
    try:
        pause = parsedate_to_datetime(at) - parsedate_to_datetime(now)
    except (ValueError, TypeError, OverflowError):  # TypeError: one of them has no time zone
        return ""
    return str(max(0, round(pause.total_seconds())))


def session_token(request: HTTPConnection) -> str:
    """The client's token: from `x-api-key`, or else a Bearer token. "" if there is neither."""
    api_key = request.headers.get("x-api-key")
    if api_key:
        return api_key
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""
