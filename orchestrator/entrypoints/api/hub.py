"""Lets many requests wait for events without a thread each. The inbox and status polls use it.

Events may be lost. A waiting request therefore reads the store again after `recheck_s` at the
latest.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection
from pathlib import Path

from orchestrator.adapters.events import wire
from orchestrator.ports import topics
from orchestrator.slim import structlog

_LISTENING_RECHECK_S = 5.0
_DEAF_RECHECK_S = 0.5
_BIND_AGAIN_S = 1.0

log = structlog.get_logger()


class Hub:
    """Wakes the requests that wait for a topic. Use it from one event loop only."""

    def __init__(self, folder: Path, name: str, kinds: Collection[str]) -> None:
        """`folder` has the sockets of all who listen. This process listens there as `name`."""
        self._folder = folder
        self._name = name
        self._kinds = kinds
        self._waiting: dict[str, set[asyncio.Event]] = defaultdict(set)
        self._listeners: dict[str, Callable[[str], None]] = {}  # by kind
        self.is_listening = False
        self.closed = False

    @property
    def recheck_s(self) -> float:
        """How long to wait before reading the store again, in case an event was lost."""
        return _LISTENING_RECHECK_S if self.is_listening else _DEAF_RECHECK_S

    def watch(self, topic: str) -> Watch:
        """Listen to a topic. Do it BEFORE reading the store, so that no event is missed between."""
        return Watch(self._waiting, topic)

    def listen(self, kind: str, take: Callable[[str], None]) -> None:
        """Call `take` with the id of the subject of each event of this kind, unless it is lost."""
        self._listeners[kind] = take

    async def run(self) -> None:
        """Listen until cancelled."""
        while True:
            try:
                listening = wire.bind(self._folder, self._name, self._kinds)
                break
            except OSError as error:  # a full disk, for example
                log.warning("wake_ups_not_heard", error=str(error))
                await asyncio.sleep(_BIND_AGAIN_S)
        wires: set[asyncio.BaseTransport] = set()
        loop = asyncio.get_running_loop()
        server = await loop.create_unix_server(lambda: _Wire(self, wires), sock=listening)
        self.is_listening = True
        # Events from before are lost: every waiter reads the store.
        self._wake_all()
        try:
            await loop.create_future()
        finally:
            self.is_listening = False
            server.close()
            for transport in tuple(wires):
                transport.close()

    def close(self) -> None:
        """End all waits now, because the process is stopping."""
        self.closed = True
        self._wake_all()

    def wake(self, topic: str) -> None:
        """Wake those who wait for this topic; all of them if events were lost."""
        if topic == wire.MISSED:
            self._wake_all()
        for event in self._waiting.get(topic, ()):
            event.set()
        kind, subject = topics.split(topic)
        if subject and kind in self._listeners:
            self._listeners[kind](subject)

    def _wake_all(self) -> None:
        for events in self._waiting.values():
            for event in events:
                event.set()


class _Wire(asyncio.Protocol):
    """A connection of a process that wakes us."""

    def __init__(self, hub: Hub, wires: set[asyncio.BaseTransport]) -> None:
        """`wires` are all that are open."""
        self._hub = hub
        self._wires = wires
        self._transport: asyncio.BaseTransport | None = None
        self._decoder = wire.Decoder()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._wires.add(transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        if self._transport is not None:
            self._wires.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        for topic in self._decoder.feed(data):
            self._hub.wake(topic)


class Watch:
    """One waiter on one topic. Use it as a context manager."""

    def __init__(self, waiting: dict[str, set[asyncio.Event]], topic: str) -> None:
        self._waiting = waiting
        self._topic = topic
        self._event = asyncio.Event()

    def __enter__(self) -> Watch:
        self._waiting[self._topic].add(self._event)
        return self

    def __exit__(self, *_: object) -> None:
        self._waiting[self._topic].discard(self._event)
        if not self._waiting[self._topic]:
            del self._waiting[self._topic]

    async def wait(self, timeout_s: float) -> bool:
        """Wait for an event. Returns False if none arrived within the time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return True
