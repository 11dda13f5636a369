"""ASGI middleware of the public app: checks size and type of a body, adds headers and the cookie.

public_app installs it in front of all routes.
"""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.entrypoints.api.problems import problem

BODY_MAX_BYTES = 1024 * 1024
_CSP = (
    b"content-security-policy",
    b"default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none';"
    b" form-action 'self'",
)
_SECURITY_HEADERS = ((b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer"))
_DOCS = ("/docs", "/openapi.json")


class _BodyTooLarge(Exception):
    """Raised inside receive() when a body turns out to be larger than allowed."""


class Guard:
    """Refuses bodies that are too large before they are parsed, and adds response headers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        error = _check_headers(scope)
        if error is not None:
            await error(scope, receive, send)
            return
        try:
            await self._app(scope, _limit_size(receive), _add_headers(scope, send))
        except _BodyTooLarge:
            await _too_large()(scope, receive, send)


def _check_headers(scope: Scope) -> ASGIApp | None:
    """The error to answer with, or None if the headers of the request are fine."""
    if scope["method"] not in {"POST", "PUT", "PATCH"}:
        return None
    headers = Headers(scope=scope)
    length = headers.get("content-length", "0")
    if not length.isdigit() or int(length) > BODY_MAX_BYTES:
        return _too_large()
    kind = headers.get("content-type", "").split(";")[0].strip().lower()
    # Only JSON: a form that another site posts with the visitor's cookie can't have this type.
    if kind != "application/json" and (length != "0" or "transfer-encoding" in headers):
        return problem(
            415, "unsupported_media_type", "send JSON, with content-type application/json"
        )
    return None


def _too_large() -> ASGIApp:
    return problem(
        413,
        "body_too_large",
        f"a request has at most {BODY_MAX_BYTES} bytes",
        limit_bytes=BODY_MAX_BYTES,
        headers={"Connection": "close"},
    )


def _limit_size(receive: Receive) -> Receive:
    size = 0

    async def limited_receive() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > BODY_MAX_BYTES:
            raise _BodyTooLarge
        return message

    return limited_receive


def _add_headers(scope: Scope, send: Send) -> Send:
    path = scope["path"]
    added = [*_SECURITY_HEADERS]
    if path.startswith("/static/"):
        # Browsers revalidate (mostly 304), so that an upgrade never mixes files of two versions.
        added.append((b"cache-control", b"no-cache"))
    if not path.startswith(_DOCS):
        added.append(_CSP)

    async def extended_send(message: Message) -> None:
        if message["type"] == "http.response.start":
            cookie = scope.get("state", {}).get("new_cookie")
            if cookie:
                added.append((b"set-cookie", cookie.encode("latin-1")))
            message["headers"] = [*message.get("headers", ()), *added]
        await send(message)

    return extended_send
