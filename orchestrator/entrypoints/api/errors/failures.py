"""The end of the line for errors that nobody expected: wraps the ASGI app of each of our servers.

The app itself has answered 500. Without this wrapper uvicorn would write the whole traceback, once
for each request. serving.py puts it around every app.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from orchestrator import tracebacks
from orchestrator.slim import structlog

_PATH_MAX = 200

log = structlog.get_logger()


class Failures:
    """Writes down what fails, so that whoever makes requests fail doesn't turn over the log.

    A line has no message of the error, and no variable: they may hold what was sent.
    """

    def __init__(self, app: ASGIApp, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._app = app
        self._monotonic = monotonic
        self._repeats = tracebacks.Repeats()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except Exception as error:  # noqa: BLE001 - the last handler: one request ends, no other
            self._log(error, str(scope.get("path", "")))

    def _log(self, error: Exception, path: str) -> None:
        text = tracebacks.describe(error, has_messages=False)
        occasion = self._repeats.take(text, self._monotonic())
        if occasion is None:
            return
        more: dict[str, Any] = {"exception": text} if occasion.is_full else {}
        log.error(
            "request_failed",
            error=type(error).__name__,
            traceback=hashlib.sha256(text.encode()).hexdigest()[:8],  # the same for equal ones
            path=path[:_PATH_MAX],
            repeats=occasion.repeats,
            **more,
        )
