"""One answer under way: written by one task, read from its start by everybody who asked for it.

The answer is kept while it is under way, so that who comes late to a shared one misses nothing,
and so that a slow reader holds up nobody. When the last reader has gone, the writer is cancelled,
and with it the call to the provider.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from orchestrator.domain import errors
from orchestrator.entrypoints.api.gateway import wire
from orchestrator.entrypoints.api.gateway.wire import Head, Refusal
from orchestrator.slim import structlog

log = structlog.get_logger()


class Phase(enum.Enum):
    """How far an answer has come."""

    AWAITED = "awaited"  # nothing is there yet
    BEGUN = "begun"  # its head is there, and perhaps some of its body
    WHOLE = "whole"
    CUT = "cut"  # there will be no more, and it isn't whole


class Exchange:
    """The answer to one request, or to several equal ones."""

    def __init__(self) -> None:
        self.phase = Phase.AWAITED
        self.code = ""  # of a refusal of our own
        self._head: Head | None = None
        self._chunks: list[bytes] = []
        self._readers = 0
        self._cancelled = False
        self._news = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None

    @property
    def over(self) -> bool:
        return self.phase in {Phase.WHOLE, Phase.CUT}

    @property
    def wanted(self) -> bool:
        """Whether it can still be joined: it is under way, and nobody has cancelled it."""
        return not self.over and not self._cancelled

    # The writer's side

    def start(self, writing: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Have the answer written by a task of its own."""
        self._writer = asyncio.create_task(writing, name="llm call")
        self._writer.add_done_callback(self._written)
        return self._writer

    def cancel(self) -> None:
        """Nobody wants the answer any more."""
        if self._writer is not None and not self.over:
            self._cancelled = True
            self._writer.cancel()

    async def ended(self) -> None:
        """Wait for the writer."""
        if self._writer is not None:
            await asyncio.wait({self._writer})

    def begin(self, head: Head) -> None:
        self._head = head
        self._move(Phase.BEGUN)

    def write(self, chunk: bytes) -> None:
        if chunk:
            self._chunks.append(chunk)
            self._move(Phase.BEGUN)

    def end(self) -> None:
        self._move(Phase.WHOLE)

    def cut(self) -> None:
        """Nothing more comes; no effect on an answer that is whole."""
        if not self.over:
            self._move(Phase.CUT)

    def refuse(self, refusal: Refusal) -> None:
        """The whole answer is an error."""
        self.code = refusal.code
        self.begin(refusal.head)
        self.write(refusal.body)
        self.end()

    # The readers' side

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Hold this while the answer is of interest."""
        self._readers += 1
        try:
            yield
        finally:
            self._readers -= 1
            if not self._readers:
                self.cancel()

    async def head(self) -> Head | None:
        """How the answer begins; None when there never was one."""
        while self._head is None and not self.over:
            await self._news.wait()
        return self._head

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body, as it came; `over` and `phase` say whether that is all of it."""
        seen = 0
        while True:
            news = self._news
            if seen < len(self._chunks):
                fresh = self._chunks[seen:]
                seen += len(fresh)
                yield b"".join(fresh)
            elif self.over:
                return
            else:
                await news.wait()

    def _written(self, writer: asyncio.Task[None]) -> None:
        """The writer has ended; a bug in it must not leave readers waiting."""
        failure = None if writer.cancelled() else writer.exception()
        if failure is not None:
            log.error("a call failed", exc_info=failure)
        if failure is not None and self.phase is Phase.AWAITED:
            self.refuse(wire.refusal_of(errors.SpawnError("something went wrong on our side")))
        self.cut()

    def _move(self, phase: Phase) -> None:
        self.phase = phase
        self._news.set()
        self._news = asyncio.Event()


@dataclass(frozen=True, kw_only=True)
class Joined:
    """An exchange, as one of its readers has it."""

    exchange: Exchange
    led: bool  # it was started for this reader


class InFlight:
    """Exchanges under way, by what was asked: equal requests share one."""

    def __init__(self) -> None:
        self._exchanges: dict[str, Exchange] = {}

    def join(self, key: str, write: Callable[[Exchange], Coroutine[Any, Any, None]]) -> Joined:
        """The exchange under way, or one that `write` writes."""
        known = self._exchanges.get(key)
        if known is not None and known.wanted:
            return Joined(exchange=known, led=False)
        exchange = self._exchanges[key] = Exchange()
        exchange.start(write(exchange)).add_done_callback(lambda _: self._forget(key, exchange))
        return Joined(exchange=exchange, led=True)

    async def close(self) -> None:
        """Cancel what is under way, and wait until it has ended."""
        pending = list(self._exchanges.values())
        for exchange in pending:
            exchange.cancel()
        for exchange in pending:
            await exchange.ended()

    def _forget(self, key: str, exchange: Exchange) -> None:
        if self._exchanges.get(key) is exchange:
            del self._exchanges[key]


class Relay(Response):
    """Sends an exchange to one client, and lets go of it as soon as the client is gone."""

    def __init__(self, join: Callable[[], Joined]) -> None:
        super().__init__()
        self._join = join

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        gone = asyncio.create_task(_disconnected(receive), name="disconnect")
        try:
            while not gone.done() and not await self._relayed(self._join(), send, gone):
                pass
        finally:
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)

    async def _relayed(self, joined: Joined, send: Send, gone: asyncio.Task[None]) -> bool:
        """False when the answer is a refusal that was meant for somebody else: of their budget, or
        because they had waited for too long."""
        with joined.exchange.reading():
            sending = asyncio.create_task(_send(joined, send), name="relay")
            try:
                await asyncio.wait({sending, gone}, return_when=asyncio.FIRST_COMPLETED)
                return sending.result() if sending.done() else True
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)


async def _send(joined: Joined, send: Send) -> bool:
    """A cut answer is left unfinished, so that nobody takes half of it for the whole."""
    exchange = joined.exchange
    head = await exchange.head()
    if exchange.code and not joined.led:
        return False
    if head is None:
        return True
    headers = [
        (name.encode("latin-1"), value.encode("latin-1")) for name, value in head.headers.items()
    ]
    await send({"type": "http.response.start", "status": head.status, "headers": headers})
    async for chunk in exchange.chunks():
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    if exchange.phase is Phase.WHOLE:
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    return True


async def _disconnected(receive: Receive) -> None:
    with suppress(OSError):
        while (await receive())["type"] != "http.disconnect":
            pass
