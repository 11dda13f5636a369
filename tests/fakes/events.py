"""Events that tests can send and break: ports.Events, in memory."""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Generator, Iterator, Sequence

from orchestrator.domain.ids import SandboxId, SessionId

_IDLE_S = 0.01  # the port says about a second; tests wait less


class EventsInMemory:
    """Records the topic of every event, and passes it to its subscribers."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self._subscribers: list[tuple[frozenset[str], queue.SimpleQueue[str]]] = []

    def session_changed(self, session_id: SessionId) -> None:
        self.send(f"session:{session_id}")

    def session_due(self, session_id: SessionId) -> None:
        self.send(f"due:{session_id}")

    def walk_wanted(self, session_id: SessionId) -> None:
        self.send(f"walk:{session_id}")

    def inbox_changed(self, sandbox_id: SandboxId) -> None:
        self.send(f"inbox:{sandbox_id}")

    def routes_changed(self) -> None:
        self.send("routes")

    def app_switched(self) -> None:
        self.send("switches")

    def pool_changed(self) -> None:
        self.send("pool")

    def hosts_changed(self) -> None:
        self.send("hosts")

    @contextlib.contextmanager
    def subscribe(self, name: str, kinds: Sequence[str]) -> Generator[Iterator[str]]:
        events: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._subscribers.append((frozenset(kinds), events))
        yield _receive(events)

    def send(self, topic: str) -> None:
        self.sent.append(topic)
        for kinds, events in self._subscribers:
            if topic.partition(":")[0] in kinds:
                events.put(topic)


class EventsThatBreak(EventsInMemory):
    """Fails every listener."""

    @contextlib.contextmanager
    def subscribe(self, name: str, kinds: Sequence[str]) -> Generator[Iterator[str]]:
        yield _receive_then_fail()


def _receive_then_fail() -> Iterator[str]:
    yield ""
    raise ConnectionError("the connection for events broke")


def _receive(events: queue.SimpleQueue[str]) -> Iterator[str]:
    while True:
        try:
            yield events.get(timeout=_IDLE_S)
        except queue.Empty:
            yield ""
