"""What is left: time, the proxy, the queue, wake-ups, bundles' bytes and the catalog."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from orchestrator.domain.ids import SandboxId, SessionId, Sha256, Slug
from orchestrator.domain.people.access import Queue
from orchestrator.domain.pool.routes import RouteTable
from orchestrator.domain.sessions.bundles import Manifest


class Clock(Protocol):
    """Where services get the time from."""

    def now(self) -> datetime: ...


class Proxy(Protocol):
    """What routes public names to sandboxes."""

    def publish(self, table: RouteTable) -> None:
        """Make this table the one in force and return when no request can be routed by an earlier
        one any more. Raises errors.ProxyRejected (the last good one stays in force),
        errors.ProxyUnavailable."""

    def published(self) -> str | None:
        """Digest of the table in force, asked from the running proxy; None when it is away."""


class Probe(Protocol):
    """Asks a public URL as a user would."""

    def answers(self, slug: Slug, timeout_s: float) -> bool:
        """Whether GET / of that app, through the proxy, gave a status below 400."""


class NudgeQueue(Protocol):
    """The work queue. Nudges may be lost or repeated."""

    def nudge(self, session_id: SessionId, queue: Queue) -> None:
        """Raises errors.QueueUnavailable."""

    def depth(self) -> dict[Queue, int]:
        """Nudges waiting per queue. Raises errors.QueueUnavailable."""


class Events(Protocol):
    """Wake-ups between processes: "something changed". Lossy; receivers also look by themselves."""

    def session_changed(self, session_id: SessionId) -> None: ...

    def inbox_changed(self, sandbox_id: SandboxId) -> None: ...

    def routes_changed(self) -> None: ...

    def pool_changed(self) -> None: ...

    def subscribe(self, topics: Sequence[str]) -> AbstractContextManager[Iterator[str]]:
        """Blocking iterator over topics that had news; yields "" about once a second when idle."""


class Bundles(Protocol):
    """Bundle bytes, by content."""

    def put(self, data: bytes) -> Sha256:
        """Keep; the same bytes twice are kept once."""

    def get(self, digest: Sha256) -> bytes:
        """Raises errors.NotFound."""

    def size(self, digest: Sha256) -> int:
        """In bytes, without reading them. Raises errors.NotFound."""

    def discard(self, digest: Sha256) -> None: ...

    def inspect(self, data: bytes) -> Manifest:
        """Check an untrusted archive without unpacking it to disk. Raises errors.InvalidInput
        (bundle_refused), errors.TooLarge."""


@dataclass(frozen=True, kw_only=True)
class Template:
    """One app of the catalog."""

    name: str
    title: str
    description: str
    kind: str
    keywords: tuple[str, ...]
    emoji: str
    accent: str  # CSS colour
    digest: Sha256
    size_bytes: int


class Catalog(Protocol):
    """The built-in templates."""

    def list(self) -> Sequence[Template]: ...

    def get(self, name: str) -> Template | None: ...

    def data(self, digest: Sha256) -> bytes | None:
        """The bundle of a template, if that digest is one's."""
