"""ASGI middleware of the public app: checks the name under which a request comes, its origin, size
and type, and adds headers and the cookie. public_app installs it in front of all routes.

A browser lets a page of any site send requests here. Two checks refuse them: the Host header must
be one of our names, since anybody can let a name of their own lead to this machine (DNS rebinding);
and what changes something must come from a page of ours, or from no page at all.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.adapters.proxy.page_files import SECURITY_HEADERS
from orchestrator.domain import host_names
from orchestrator.domain.logged_requests import WRITES
from orchestrator.entrypoints.api.errors.problems import problem

# A prompt has 16 KiB, and 96 if each of its characters is escaped. More would only take the event
# loop: 1 MiB of brackets is parsed for half a second.
BODY_MAX_BYTES = 128 * 1024
_SECURITY_HEADERS = tuple(
    (name.lower().encode(), value.encode()) for name, value in SECURITY_HEADERS
)
_LENGTH = re.compile(r"[0-9]{1,12}")
_OTHER_SITES = frozenset({"cross-site", "same-site"})
_NAMES = "names are added with SPAWN_EXTRA_HOSTS"


class Guard:
    """Refuses requests by their head, and bodies that are too large before they are parsed. Adds
    response headers. `hosts` are our names, as host_names spells them."""

    def __init__(self, app: ASGIApp, *, hosts: Collection[str]) -> None:
        self._app = app
        self._hosts = frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        error = _check_host(headers, self._hosts)
        if error is None and scope["method"] in WRITES:
            error = _check_origin(headers, self._hosts) or _check_body(headers)
            if error is None:
                messages = await _read_body(receive)
                error = _too_large() if messages is None else None
                receive = _replay(messages or [], receive)
        if error is not None:
            await error(scope, receive, send)
            return
        await self._app(scope, receive, _add_headers(scope, send))


def _check_host(headers: Headers, hosts: Collection[str]) -> ASGIApp | None:
    """The error to answer with, or None if the request names us, once."""
    named = headers.getlist("host")
    if len(named) == 1 and host_names.from_header(named[0]) in hosts:
        return None
    return problem(
        421,
        "host_refused",
        f"nothing is served under this name; use the page's own address ({_NAMES})",
    )


def _check_origin(headers: Headers, hosts: Collection[str]) -> ASGIApp | None:
    """The error to answer with, or None if a page of ours sends this, or a program."""
    origins = headers.getlist("origin")
    if (
        all(host_names.from_origin(origin) in hosts for origin in origins)
        and headers.get("sec-fetch-site", "").lower() not in _OTHER_SITES
    ):
        return None
    return problem(
        403,
        "origin_refused",
        "a page of another site may not change anything here; use SpawnAI's own page,"
        f" or send no Origin header ({_NAMES})",
    )


def _check_body(headers: Headers) -> ASGIApp | None:
    """The error to answer with, or None if the body may be read, as far as the head says."""
    length = headers.get("content-length", "0")
    if not _LENGTH.fullmatch(length) or int(length) > BODY_MAX_BYTES:
        return _too_large()
    kind = headers.get("content-type", "").split(";")[0].strip().lower()
    # Only JSON: a form that another site posts with the visitor's cookie can't have this type.
    if kind != "application/json" and (length != "0" or "transfer-encoding" in headers):
        return problem(
            415, "unsupported_media_type", "send JSON, with content-type application/json"
        )
    return None


async def _read_body(receive: Receive) -> list[Message] | None:
    """The messages with the whole body, or None if it is too large. The proxy sends it at once."""
    messages: list[Message] = []
    size = 0
    while True:
        message = await receive()
        messages.append(message)
        size += len(message.get("body", b""))
        if size > BODY_MAX_BYTES:
            return None
        if not message.get("more_body", False):  # the end, or the client is gone
            return messages


def _replay(messages: list[Message], receive: Receive) -> Receive:
    """What the app receives: what was read already, and then whatever comes from the client."""

    async def replayed() -> Message:
        return messages.pop(0) if messages else await receive()

    return replayed


def _too_large() -> ASGIApp:
    return problem(
        413,
        "body_too_large",
        f"a request has at most {BODY_MAX_BYTES} bytes",
        limit_bytes=BODY_MAX_BYTES,
        headers={"Connection": "close"},
    )


def _add_headers(scope: Scope, send: Send) -> Send:
    added = [*_SECURITY_HEADERS]

    async def extended_send(message: Message) -> None:
        if message["type"] == "http.response.start":
            cookie = scope.get("state", {}).get("new_cookie")
            if cookie:
                added.append((b"set-cookie", cookie.encode("latin-1")))
            message["headers"] = [*message.get("headers", ()), *added]
        await send(message)

    return extended_send
