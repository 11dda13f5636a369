"""Wake-ups that tests can send and break: ports.Events, in memory."""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Generator, Iterator, Sequence

from orchestrator.domain.ids import SandboxId, SessionId

_IDLE_S = 0.01  # the port says about a second; tests have less time


class EventsInMemory:
    """Keeps every topic that had news, and hands it to who subscribed."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self._subscribers: list[tuple[frozenset[str], queue.SimpleQueue[str]]] = []

    def session_changed(self, session_id: SessionId) -> None:
        self._send(f"session:{session_id}")

    def inbox_changed(self, sandbox_id: SandboxId) -> None:
        self._send(f"inbox:{sandbox_id}")

    def routes_changed(self) -> None:
        self._send("routes")

    def pool_changed(self) -> None:
        self._send("pool")

    @contextlib.contextmanager
    def subscribe(self, topics: Sequence[str]) -> Generator[Iterator[str]]:
        news: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._subscribers.append((frozenset(topics), news))
        yield _topics_of(news)

    def _send(self, topic: str) -> None:
        self.sent.append(topic)
        for topics, news in self._subscribers:
            if topic in topics:
                news.put(topic)


class EventsThatBreak(EventsInMemory):
    """Whoever listens dies of it."""

    @contextlib.contextmanager
    def subscribe(self, topics: Sequence[str]) -> Generator[Iterator[str]]:
        yield _broken()


def _broken() -> Iterator[str]:
    yield ""
    raise ConnectionError("the wake-ups broke")


def _topics_of(news: queue.SimpleQueue[str]) -> Iterator[str]:
    while True:
        try:
            yield news.get(timeout=_IDLE_S)
        except queue.Empty:
            yield ""
