"""The Messages API as it looks on the wire: errors, and which headers pass. Used by the whole
package.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from starlette.requests import Request

from orchestrator.domain import errors

BODY_MAX_BYTES = 32 * 1024**2  # the Messages API's own limit

# Credentials, cookies and hop-by-hop headers stay here; whatever a client says of itself passes.
_UP = frozenset({"content-type", "accept", "user-agent", "x-app"})
_UP_PREFIXES = ("anthropic-", "x-stainless-")
_DOWN = frozenset(
    {"content-type", "content-encoding", "request-id", "retry-after", "retry-after-ms"}
    | {"x-should-retry"}
)
_DOWN_PREFIXES = ("anthropic-",)
# What an answer depends on besides its body.
VERSIONING = ("anthropic-version", "anthropic-beta")

# First match wins, so the more special class stands first.
_ERRORS: Sequence[tuple[type[errors.SpawnError], tuple[int, str]]] = (
    (errors.BudgetExhausted, (402, "billing_error")),
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
    """How an answer begins."""

    status: int
    headers: Mapping[str, str]  # names in lower case


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """An answer that is an error, whole."""

    head: Head
    body: bytes
    code: str = ""  # ours, where the error is ours


def refusal(
    status: int, kind: str, message: str, *, code: str, headers: Mapping[str, str], **detail: object
) -> Refusal:
    """An error in the API's own shape, so that its clients understand it; `code` is ours."""
    request_id = f"req_{secrets.token_hex(12)}"
    error = {"type": kind, "message": message, "code": code, **detail}
    body = {"type": "error", "error": error, "request_id": request_id}
    shown = {"content-type": "application/json", "request-id": request_id, **headers}
    return Refusal(
        head=Head(status=status, headers=shown), body=json.dumps(body).encode(), code=code
    )


def refusal_of(error: errors.SpawnError) -> Refusal:
    """Our own error in the API's terms."""
    status, kind = next(said for raised, said in _ERRORS if isinstance(error, raised))
    headers = {}
    if isinstance(error, errors.Temporary):
        headers["retry-after"] = str(max(1, round(error.retry_after_s)))
    else:
        headers["x-should-retry"] = "false"
    return refusal(status, kind, str(error), code=error.code, headers=headers, **error.detail)


def headers_up(request: Request) -> dict[str, str]:
    """What passes from a client to a provider."""
    passed = {
        name: value
        for name, value in request.headers.items()
        if name in _UP or name.startswith(_UP_PREFIXES)
    }
    # Compressed events would sit in a buffer on the way, and we could not read their usage.
    return {**passed, "accept-encoding": "identity"}


def headers_down(headers: Mapping[str, str]) -> dict[str, str]:
    """What passes from a provider to a client; an answer without an id gets one."""
    passed = {
        name.lower(): value
        for name, value in headers.items()
        if name.lower() in _DOWN or name.lower().startswith(_DOWN_PREFIXES)
    }
    return {"request-id": f"req_{secrets.token_hex(12)}", **passed}


def token_of(request: Request) -> str:
    """As the API takes it: x-api-key, or a Bearer token."""
    given = request.headers.get("x-api-key")
    if given:
        return given
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""
