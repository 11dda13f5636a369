"""What the endpoints of one api process share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ParamSpec, TypeVar, cast

from starlette.requests import HTTPConnection

from orchestrator.config import Settings
from orchestrator.entrypoints.api.gateway.board import Board
from orchestrator.entrypoints.api.hub import Hub
from orchestrator.services.deps import Deps

_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Context:
    """Made once by server.py; reached through app.state."""

    settings: Settings
    deps: Deps
    hub: Hub
    started_at: datetime
    board: Board = field(default_factory=Board)  # what the gateway tells of itself
    threads: ThreadPoolExecutor = field(
        # As many as the store has connections: more would only wait for one.
        default_factory=lambda: ThreadPoolExecutor(5, thread_name_prefix="store")
    )

    async def in_thread(
        self, call: Callable[_P, _T], /, *args: _P.args, **options: _P.kwargs
    ) -> _T:
        """Run what blocks beside the event loop."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.threads, lambda: call(*args, **options))

    async def look_up(self, call: Callable[_P, _T], /, *args: _P.args, **options: _P.kwargs) -> _T:
        """Run a read or two by key. In the embedded database, whose readers wait for nobody, they
        take 70 us each (bench/), less than a change of threads; a database server is waited for in
        a thread."""
        if self.settings.places.effective_database_url.startswith("sqlite:"):
            return call(*args, **options)
        return await self.in_thread(call, *args, **options)


def context_of(request: HTTPConnection) -> Context:
    app: Any = request.app
    return cast(Context, app.state.context)
