"""Ports to everything but hosts and the database: clock, proxy, queue, events, bundles, catalog."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from orchestrator.contract.health import PATIENCE_S, Finding
from orchestrator.contract.manifest import Manifest
from orchestrator.domain.ids import SandboxId, SessionId, Sha256, Slug
from orchestrator.domain.pool.published_ports import Endpoint, PortAnswer
from orchestrator.domain.pool.routes import RouteTable
from orchestrator.domain.sessions.priority import Queue


class Clock(Protocol):
    """Tells services the time of the application.

    All processes of this machine have the same. It never jumps: when somebody sets the machine's
    clock, it runs on evenly, and the two differ from then on.
    """

    def now(self) -> datetime: ...

    def offset(self) -> timedelta:
        """How far the machine's clock is ahead of `now`, in whole seconds. People are shown the
        sum of both."""

    def jumped_at(self) -> datetime | None:
        """Since when the offset is what it is, once the daemon has noted that; None without one.

        Raises errors.StorageUnavailable.
        """


class Term(Protocol):
    """One daemon's time as the leader. What a leader does outside the database asks it first."""

    @property
    def number(self) -> int:
        """Greater than that of every earlier leader."""

    def check(self) -> None:
        """Raises errors.TermOver as soon as another daemon may lead."""


class Reserve(Protocol):
    """Room on the disk of the state folder that is set aside for what frees room."""

    @property
    def size_bytes(self) -> int: ...

    def keep(self) -> None:
        """Set the room aside, unless it is. Raises errors.StorageUnavailable."""

    def release(self) -> bool:
        """Give the room back. False: none was set aside."""


class Proxy(Protocol):
    """Leads requests for public names to sandboxes."""

    def publish(self, table: RouteTable, *, afresh: bool = False) -> None:
        """Put this table in force. Returns once no request can be routed by an earlier table.

        `afresh`: look at each route that the proxy has, whatever is remembered of them. Raises
        errors.ProxyRejected, and then the last good table stays in force, errors.ProxyUnavailable,
        or errors.TermOver if a later leader has published.
        """

    def published(self) -> str | None:
        """The digest of the table in force, from the running proxy. None: it doesn't answer."""


class Probe(Protocol):
    """Requests a public URL as a user would."""

    async def walk(self, slug: Slug, trial: str = "", *, patience_s: float = PATIENCE_S) -> Finding:
        """Open the app through the proxy, and follow its redirects. Takes `patience_s` at most.

        `trial` is the secret of the version that its agent tries; empty: the version that is shown.
        """


class PortLooks(Protocol):
    """Connects to published ports as the proxy does, and sends no request."""

    def look(self, endpoints: Collection[Endpoint]) -> Mapping[Endpoint, PortAnswer]:
        """What became of a connection to each. Those that we couldn't even try are left out."""


class NudgeQueue(Protocol):
    """The work queue. Nudges may be lost or repeated."""

    def nudge(self, session_id: SessionId, queue: Queue) -> None:
        """Ask for a look at this session, unless one already waits in that queue.

        A look that has begun doesn't count. Never fails: the session gets its look otherwise.
        """

    def depth(self) -> dict[Queue, int]:
        """How many nudges wait in each queue. Raises errors.QueueUnavailable."""


class Events(Protocol):
    """Wake-ups between processes: "something changed". Lossy; receivers also poll."""

    def session_changed(self, session_id: SessionId) -> None: ...

    def session_due(self, session_id: SessionId) -> None:
        """It needs a look, and the work queue can't pass that on: the daemon takes it."""

    def walk_wanted(self, session_id: SessionId) -> None:
        """The process `agents` should walk its public address. A walk under way is no news."""

    def inbox_changed(self, sandbox_id: SandboxId) -> None: ...

    def routes_changed(self) -> None: ...

    def app_switched(self) -> None:
        """An app has another sandbox: its user waits until its public name leads there."""

    def pool_changed(self) -> None: ...

    def hosts_changed(self) -> None: ...

    def subscribe(self, name: str, kinds: Sequence[str]) -> AbstractContextManager[Iterator[str]]:
        """A blocking iterator over topics of these kinds that changed: see ports/topics.py.

        `name` tells this listener from others: a later one with the same name takes its place.
        Yields each kind without a subject if events may have been lost, and "" about once a second
        if idle.
        """


class Listener(Protocol):
    """The agents' listener, reached as an agent reaches it."""

    def process(self) -> str | None:
        """The id of the process that answers, new after each start. None: no answer in time."""


class GatewayStatus(Protocol):
    """What the gateway's process tells about itself. Lossy: empty while it doesn't answer."""

    def metrics(self) -> bytes:
        """Its metrics in the text format of Prometheus."""

    def refused_keys(self) -> Mapping[str, str]:
        """Settings whose key a provider refused at its last use, with the provider's reason."""


class Bundles(Protocol):
    """The bytes of bundles, stored under their digest."""

    def put(self, data: bytes) -> Sha256:
        """Store the bytes, fresh as after `touch`. Equal bytes are stored once."""

    def touch(self, digest: Sha256) -> None:
        """Make the bytes as fresh as new ones: no sweep deletes them before a record names them.

        Raises errors.NotFound.
        """

    def get(self, digest: Sha256) -> bytes:
        """Raises errors.NotFound."""

    def size(self, digest: Sha256) -> int:
        """The size in bytes, without reading them. Raises errors.NotFound."""

    def stale(self, before: datetime) -> Sequence[Sha256]:
        """All that were neither put nor touched since `before`."""

    def discard(self, digest: Sha256, before: datetime) -> bool:
        """Delete the bytes, unless they were put or touched since `before`, also just now.

        Returns whether they were deleted.
        """

    def inspect(self, data: bytes) -> Manifest:
        """Check an untrusted archive without unpacking it to disk, and return its manifest.

        Raises errors.InvalidInput (bundle_refused) or errors.TooLarge.
        """


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
        """The bundle of the template with that digest. None: no template has it."""
