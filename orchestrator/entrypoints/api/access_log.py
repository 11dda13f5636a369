"""ASGI middleware of the public app: logs who asked for what, and how it ended.

public_app installs it in front of Guard, so that refusals are logged too. A line has no query, no
header and no body: those hold keys, cookies and prompts.
"""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.domain.logged_requests import WRITES, LoggedRequests
from orchestrator.entrypoints.api.bounds import networks
from orchestrator.slim import structlog

LINES_PER_S = 100  # of all processes; 200 bytes each: a flood fills 20 MB in 17 minutes
_ADDRESSES_AT_LEAST = 5  # that share the lines of a second
_PATH_MAX = 200
_METHOD_MAX = 10

log = structlog.get_logger()


class LineBudget:
    """How many more lines may be logged within this second, and for whom.

    A fifth of them is the most for one address, so that a flood leaves lines for others. Requests
    that change nothing and were refused get half of all, and of an address's lines, at most: they
    cost nothing to send, and what somebody has changed is to be traced first.
    """

    def __init__(self, lines_per_s: int = LINES_PER_S) -> None:
        self._lines_per_s = lines_per_s
        self._second = -1
        self._taken = 0
        self._errors_taken = 0
        self._of_address: Counter[str] = Counter()  # has no more entries than lines were taken
        self._errors_of_address: Counter[str] = Counter()
        self._omitted = 0

    def take(self, now_s: float, address: str, *, is_write: bool) -> int | None:
        """Take one line. Returns how many were omitted before it; None if this one is too."""
        if int(now_s) != self._second:
            self._second = int(now_s)
            self._taken = self._errors_taken = 0
            self._of_address.clear()
            self._errors_of_address.clear()
        if not self._has_line(address, is_write=is_write):
            self._omitted += 1
            return None
        self._taken += 1
        self._of_address[address] += 1
        if not is_write:
            self._errors_taken += 1
            self._errors_of_address[address] += 1
        omitted, self._omitted = self._omitted, 0
        return omitted

    def _has_line(self, address: str, *, is_write: bool) -> bool:
        most = max(1, self._lines_per_s // _ADDRESSES_AT_LEAST)
        if self._taken >= self._lines_per_s or self._of_address[address] >= most:
            return False
        return is_write or (
            self._errors_taken < max(1, self._lines_per_s // 2)
            and self._errors_of_address[address] < max(1, most // 2)
        )


class AccessLog:
    """Logs the requests that `logs` includes. Their answers carry the id of the line."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        logs: LoggedRequests,
        processes: int = 1,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`processes` share the lines that may be logged."""
        self._app = app
        self._logs = logs
        self._monotonic = monotonic
        self._budget = LineBudget(lines_per_s=max(1, LINES_PER_S // processes))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope.setdefault("state", {})  # `auth` says there who the caller is
        started_s = self._monotonic()
        status, request_id = 500, ""  # an exception that leaves the app becomes a 500

        async def extended_send(message: Message) -> None:
            nonlocal status, request_id
            if message["type"] == "http.response.start":
                status = message["status"]
                if self._logs.includes(scope["method"], status):
                    request_id = secrets.token_hex(8)
                    header = (b"x-request-id", request_id.encode("ascii"))
                    message["headers"] = [*message.get("headers", ()), header]
            await send(message)

        try:
            await self._app(scope, receive, extended_send)
        finally:
            if self._logs.includes(scope["method"], status):
                duration_ms = round((self._monotonic() - started_s) * 1000, 1)
                self._log(scope, request_id, status, duration_ms)

    def _log(self, scope: Scope, request_id: str, status: int, duration_ms: float) -> None:
        client = scope.get("client")
        address = networks.network_of(client[0]) if client else "-"
        is_write = scope["method"] in WRITES
        omitted = self._budget.take(self._monotonic(), address, is_write=is_write)
        if omitted is None:
            return
        more: dict[str, Any] = {"omitted": omitted} if omitted else {}
        log.info(
            "request_finished",
            request=request_id or "-",
            method=scope["method"][:_METHOD_MAX],
            path=scope["path"][:_PATH_MAX],
            status=status,
            user=scope["state"].get("user_id", "-"),
            address=client[0] if client else "-",
            duration_ms=duration_ms,
            **more,
        )
