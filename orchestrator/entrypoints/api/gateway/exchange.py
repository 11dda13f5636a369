"""One response in progress. One task writes it, and any number of clients read it from the start.

`app` uses it to share one call between equal requests. The whole response is kept in memory while
it is in progress. A client that joins late therefore misses nothing, and a slow client doesn't
hold up the others. When the last client leaves, the writer is cancelled, and with it the call to
the provider.
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
from orchestrator.entrypoints.api.gateway.wire import ErrorResponse, Head
from orchestrator.slim import structlog

log = structlog.get_logger()


class Phase(enum.Enum):
    """How much of a response exists."""

    PENDING = "pending"  # nothing yet
    STARTED = "started"  # the head, and perhaps a part of the body
    COMPLETE = "complete"  # all of it
    CUT = "cut"  # a part of it, and no more will follow


class Exchange:
    """The response to one request, or to several equal ones."""

    def __init__(self) -> None:
        self.phase = Phase.PENDING
        self.error_code = ""  # set if the response is one of our own errors
        self._head: Head | None = None
        self._chunks: list[bytes] = []
        self._readers = 0
        self._is_cancelled = False
        self._changed = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None

    @property
    def is_over(self) -> bool:
        return self.phase in {Phase.COMPLETE, Phase.CUT}

    @property
    def can_be_joined(self) -> bool:
        """Whether a new reader can get the response: it isn't over, and not cancelled."""
        return not self.is_over and not self._is_cancelled

    # For the writer

    def start_writer(self, writing: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run the coroutine that writes the response, in a task of its own."""
        self._writer = asyncio.create_task(writing, name="llm call")
        self._writer.add_done_callback(self._on_writer_end)
        return self._writer

    def cancel(self) -> None:
        """Stop the writer, because no client wants the response any more."""
        if self._writer is not None and not self.is_over:
            self._is_cancelled = True
            self._writer.cancel()

    async def wait_for_writer(self) -> None:
        """Wait until the writer has ended."""
        if self._writer is not None:
            await asyncio.wait({self._writer})

    def begin(self, head: Head) -> None:
        self._head = head
        self._enter(Phase.STARTED)

    def write(self, chunk: bytes) -> None:
        if chunk:
            self._chunks.append(chunk)
            self._enter(Phase.STARTED)

    def ping(self, head: Head, chunk: bytes) -> None:
        """Begin the response if it hasn't begun, and write something that says nothing."""
        if self._head is None:
            self._head = head
        self.write(chunk)

    def complete(self) -> None:
        self._enter(Phase.COMPLETE)

    def cut(self) -> None:
        """End the response early. Does nothing if it is complete."""
        if not self.is_over:
            self._enter(Phase.CUT)

    def fail(self, error: ErrorResponse) -> None:
        """Make the whole response an error, or end it with one if it has begun."""
        if self._head is None:
            self.error_code = error.code
            self.begin(error.head)
            self.write(error.body)
        else:
            self.write(wire.error_event(error))
        self.complete()

    # For the readers

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Count as a reader. The response is cancelled when the last reader leaves."""
        self._readers += 1
        try:
            yield
        finally:
            self._readers -= 1
            if not self._readers:
                self.cancel()

    async def wait_for_head(self) -> Head | None:
        """Status and headers. None if the response ended without any."""
        while self._head is None and not self.is_over:
            await self._changed.wait()
        return self._head

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body from its start, as it arrives. Afterwards `phase` says whether it is whole."""
        count = 0
        while True:
            changed = self._changed
            if count < len(self._chunks):
                new_chunks = self._chunks[count:]
                count += len(new_chunks)
                yield b"".join(new_chunks)
            elif self.is_over:
                return
            else:
                await changed.wait()

    def _on_writer_end(self, writer: asyncio.Task[None]) -> None:
        """End the response with its writer: a bug there must not leave readers waiting."""
        failure = None if writer.cancelled() else writer.exception()
        if failure is not None:
            log.error("call_crashed", exc_info=failure)
        if failure is not None and self.phase is Phase.PENDING:
            error = errors.SpawnError("something went wrong on our side")
            self.fail(wire.error_response_for(error))
        self.cut()

    def _enter(self, phase: Phase) -> None:
        """Set the phase, and wake all readers."""
        self.phase = phase
        self._changed.set()
        self._changed = asyncio.Event()


@dataclass(frozen=True, kw_only=True)
class Subscription:
    """One client's access to an exchange."""

    exchange: Exchange
    is_first: bool  # the exchange was started for this client


class InFlight:
    """The exchanges in progress, by key. Requests with the same key share one."""

    def __init__(self) -> None:
        self._exchanges: dict[str, Exchange] = {}

    def join(
        self, key: str, write: Callable[[Exchange], Coroutine[Any, Any, None]]
    ) -> Subscription:
        """Join the exchange of this key, or start one that `write` writes."""
        current = self._exchanges.get(key)
        if current is not None and current.can_be_joined:
            return Subscription(exchange=current, is_first=False)
        exchange = self._exchanges[key] = Exchange()
        writer = exchange.start_writer(write(exchange))
        writer.add_done_callback(lambda _: self._remove(key, exchange))
        return Subscription(exchange=exchange, is_first=True)

    async def close(self) -> None:
        """Cancel all exchanges, and wait until their writers have ended."""
        exchanges = list(self._exchanges.values())
        for exchange in exchanges:
            exchange.cancel()
        for exchange in exchanges:
            await exchange.wait_for_writer()

    def _remove(self, key: str, exchange: Exchange) -> None:
        if self._exchanges.get(key) is exchange:
            del self._exchanges[key]


class Relay(Response):
    """Sends an exchange to one client, and leaves it as soon as the client disconnects."""

    def __init__(self, join: Callable[[], Subscription]) -> None:
        super().__init__()
        self._join = join

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        disconnect = asyncio.create_task(_wait_for_disconnect(receive), name="disconnect")
        try:
            while not disconnect.done():
                if await self._relay(self._join(), send, disconnect):
                    return
        finally:
            disconnect.cancel()
            await asyncio.gather(disconnect, return_exceptions=True)

    async def _relay(
        self, subscription: Subscription, send: Send, disconnect: asyncio.Task[None]
    ) -> bool:
        """Send the exchange to the client, until the client disconnects.

        Returns False if the response is an error that concerns another client only: that one's
        budget is used up, or it waited too long for a slot. The caller then joins again.
        """
        with subscription.exchange.reading():
            sending = asyncio.create_task(_send(subscription, send), name="relay")
            try:
                await asyncio.wait({sending, disconnect}, return_when=asyncio.FIRST_COMPLETED)
                return sending.result() if sending.done() else True
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)


async def _send(subscription: Subscription, send: Send) -> bool:
    """Send the response. Returns False, and sends nothing, if it is another client's error.

    A cut response is left open, so that no client takes a part of it for the whole.
    """
    exchange = subscription.exchange
    head = await exchange.wait_for_head()
    if exchange.error_code and not subscription.is_first:
        return False
    if head is None:
        return True
    headers = [
        (name.encode("latin-1"), value.encode("latin-1")) for name, value in head.headers.items()
    ]
    await send({"type": "http.response.start", "status": head.status, "headers": headers})
    async for chunk in exchange.chunks():
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    if exchange.phase is Phase.COMPLETE:
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    return True


async def _wait_for_disconnect(receive: Receive) -> None:
    with suppress(OSError):
        while (await receive())["type"] != "http.disconnect":
            pass
