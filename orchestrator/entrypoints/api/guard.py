"""ASGI middleware of the public app: body limit, content type, security headers, cookie."""

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
_ALWAYS = ((b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer"))
_DOCS = ("/docs", "/openapi.json")


class _BodyTooLarge(Exception):
    """Raised inside receive(), once more came in than was announced or allowed."""


class Guard:
    """Refuses what is too large before anybody parses it, and adds headers on the way out."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = _refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        try:
            await self._app(scope, _counted(receive), _decorated(scope, send))
        except _BodyTooLarge:
            await _too_large()(scope, receive, send)


def _refusal(scope: Scope) -> ASGIApp | None:
    if scope["method"] not in {"POST", "PUT", "PATCH"}:
        return None
    headers = Headers(scope=scope)
    length = headers.get("content-length", "0")
    if not length.isdigit() or int(length) > BODY_MAX_BYTES:
        return _too_large()
    kind = headers.get("content-type", "").split(";")[0].strip().lower()
    # JSON alone: a form that another site posts with the visitor's cookie can't have this type.
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


def _counted(receive: Receive) -> Receive:
    seen = 0

    async def counting() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > BODY_MAX_BYTES:
            raise _BodyTooLarge
        return message

    return counting


def _decorated(scope: Scope, send: Send) -> Send:
    path = scope["path"]
    extra = [*_ALWAYS]
    if path.startswith("/static/"):
        # Asked again each time (304 mostly), so that an upgrade never mixes two versions.
        extra.append((b"cache-control", b"no-cache"))
    if not path.startswith(_DOCS):
        extra.append(_CSP)

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            cookie = scope.get("state", {}).get("new_cookie")
            if cookie:
                extra.append((b"set-cookie", cookie.encode("latin-1")))
            message["headers"] = [*message.get("headers", ()), *extra]
        await send(message)

    return sending
