"""The methods of HTTP that every resource of the public app has by the same rules.

Where there is GET there is HEAD, and a refused method is told which ones there are. public_app and
the handlers of errors use it.
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


class HeadAsGet:
    """Answers HEAD as GET, without the body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def send_head(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        await self._app({**scope, "method": "GET"}, receive, send_head)


def allowed(request: Request) -> Sequence[str]:
    """The methods that the requested path has."""
    scope = {name: request.scope.get(name, "") for name in ("type", "path", "root_path")}
    names = [
        method
        for method in _METHODS
        for route in request.app.routes
        if route.matches({**scope, "method": method})[0] is Match.FULL
    ]
    return ["HEAD", *names] if "GET" in names else names
