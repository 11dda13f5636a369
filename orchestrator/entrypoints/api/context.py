"""What all endpoints of one process share: of the api or of agents. Its server builds it, once."""

from __future__ import annotations

import asyncio
import functools
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ParamSpec, TypeVar, cast

from starlette.requests import HTTPConnection
from starlette.responses import Response

from orchestrator.config import Settings
from orchestrator.domain import errors
from orchestrator.entrypoints.api.api_metrics import ApiMetrics
from orchestrator.entrypoints.api.bounds.holds import Holds
from orchestrator.entrypoints.api.bounds.long_reads import LongReads
from orchestrator.entrypoints.api.bounds.shared import Shared
from orchestrator.entrypoints.api.gateway.metrics import GatewayMetrics
from orchestrator.entrypoints.api.hub import Hub
from orchestrator.services.deps import Deps

_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Context:
    """Both apps keep it in `app.state`. Endpoints get it from `context_of`."""

    settings: Settings
    deps: Deps
    hub: Hub
    started_at: datetime  # the whole installation, as far as we know
    number: int = 1  # of an api process; they count from 1
    process: str = field(default_factory=lambda: secrets.token_hex(8))  # new after each start
    metrics: GatewayMetrics = field(default_factory=GatewayMetrics)  # of the process `agents`
    api_metrics: ApiMetrics = field(default_factory=ApiMetrics)  # of a process of the API
    threads: ThreadPoolExecutor = field(
        # One per connection of the store: another thread would only wait for a connection.
        default_factory=lambda: ThreadPoolExecutor(5, thread_name_prefix="store")
    )
    answers_kept_s: float = 1.0  # those that all who ask share
    _shared: dict[Callable[[Context], Response], Shared[Response]] = field(default_factory=dict)

    def shown(self, at: datetime) -> str:
        """A time of the application as people see it: by this machine's clock, as text."""
        return (at + self.deps.clock.offset()).isoformat()

    @functools.cached_property
    def polls(self) -> Holds:
        """The requests that wait for a change, by user. The proxy counts visitors by address."""
        return Holds(
            "requests that wait",
            code="too_many_polls",
            refusals=self.api_metrics.refused_polls,
            held=self.api_metrics.waiting_polls,
            processes=self.settings.processes.api_processes,
        )

    @functools.cached_property
    def downloads(self) -> Holds:
        """The sources of apps that are being sent, by user."""
        return Holds(
            "downloads",
            code="too_many_downloads",
            refusals=self.api_metrics.refused_downloads,
            processes=self.settings.processes.api_processes,
        )

    @functools.cached_property
    def long_reads(self) -> LongReads:
        """Lists that may be long, by user and by address."""
        return LongReads(self.api_metrics.refused_reads, self.settings.processes.api_processes)

    async def shared_answer(self, make: Callable[[Context], Response]) -> Response:
        """What `make` answers, in a thread, once for all who ask at about the same time."""
        if make not in self._shared:
            self._shared[make] = Shared(lambda: self.in_thread(make, self), self.answers_kept_s)
        return await self._shared[make].get()

    async def in_thread(
        self, call: Callable[_P, _T], /, *args: _P.args, **options: _P.kwargs
    ) -> _T:
        """Run a blocking call in a thread, so that the event loop goes on."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.threads, lambda: call(*args, **options))

    async def look_up(self, call: Callable[_P, _T], /, *args: _P.args, **options: _P.kwargs) -> _T:
        """Run a call that usually reads a few rows by key, and changes nothing.

        With the embedded database it runs right here, on a connection that can't write and waits
        for nobody: such a read takes 70 us (bench/), less than a change of threads. If it turns
        out to need more, a count for example, it starts again in a thread. With a database server
        it runs in a thread at once.
        """
        try:
            with self.deps.store.keyed_reads():
                return call(*args, **options)
        except errors.WouldBlock:
            pass
        return await self.in_thread(call, *args, **options)


def context_of(request: HTTPConnection) -> Context:
    """The context of the app that serves this request."""
    app: Any = request.app
    return cast(Context, app.state.context)
