"""The database: sessions with their changes, sandboxes, hosts, and the Store as a whole."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from orchestrator.domain.ids import HostId, SandboxId, SessionId, Slug, UserId
from orchestrator.domain.pool.host import Host, HostLoad, Wish
from orchestrator.domain.pool.refill import PoolTotals
from orchestrator.domain.pool.routes import Route
from orchestrator.domain.pool.sandbox import Sandbox, SandboxState
from orchestrator.domain.sessions.changes import Change
from orchestrator.domain.sessions.session import Session, SessionState
from orchestrator.ports.records import Audit, BundleRecords, Generations, Keys, Leases, Logs, Usage


@dataclass(frozen=True, kw_only=True)
class Idempotency:
    """A client's Idempotency-Key and what it was first used for."""

    key: str
    fingerprint: str  # SHA-256 of the request; another one under the same key is a conflict


@dataclass(frozen=True, kw_only=True)
class NewSandbox:
    """The parts of a sandbox that its maker chooses; host, port and times come from the store."""

    id: SandboxId
    session_id: SessionId | None
    slug: Slug
    image: str  # today's; a session's sandbox may get the older one that its host has
    wish: Wish = field(default_factory=Wish)
    avoid: tuple[HostId, ...] = ()  # hosts that are not to be tried


class Sessions(Protocol):
    """Sessions and their history. Every write bumps `revision`."""

    def add(self, session: Session, idempotency: Idempotency | None, *, max_active: int) -> Session:
        """Insert, and return it. With a known idempotency key of the same user and the same
        fingerprint: return the session that was made then, unchanged. Raises errors.Conflict
        (code idempotency_conflict) when the fingerprint differs, errors.LimitReached (detail:
        limit) when the user has `max_active` sessions that haven't ended: counted in the same
        transaction, under a lock on the user, so that concurrent calls can't pass it."""

    def get(self, session_id: SessionId) -> Session:
        """Raises errors.NotFound."""

    def save(self, session: Session) -> Session:
        """Write it if its revision is still the stored one; returns it with the next revision.
        A new entry of history becomes an event. Raises errors.StaleWrite, errors.NotFound."""

    def list(
        self,
        *,
        user_id: UserId | None = None,
        states: Iterable[SessionState] | None = None,
        limit: int = 100,
    ) -> Sequence[Session]:
        """Newest first."""

    def counts(self) -> dict[SessionState, int]:
        """Sessions per state; states without any are left out."""

    def count_in(self, states: Iterable[SessionState]) -> int:
        """Sessions in these states: costs no more than there are, which `counts` does."""

    def ahead_of(self, session: Session, now: datetime) -> int:
        """QUEUED, due and wanted sessions before it, by tier rank and then age (id breaks ties)."""

    def waiting(self, now: datetime) -> int:
        """QUEUED sessions that are due and wanted."""

    def due(self, now: datetime, limit: int) -> Sequence[Session]:
        """Not ended, due_at <= now; those under way first, then QUEUED in queue order."""

    def expire(self, now: datetime, limit: int) -> Sequence[Session]:
        """Set wanted = GONE, due_at = now where RUNNING, not ended and expires_at <= now: checked
        and written in one transaction, so that an extend that committed first wins. Returns
        those sessions."""

    def prune(self, ended_before: datetime) -> int:
        """Delete ended sessions (with events and logs) whose last update is older; how many."""


class Sandboxes(Protocol):
    """Sandboxes, claims and placements."""

    def get(self, sandbox_id: SandboxId) -> Sandbox:
        """Raises errors.NotFound."""

    def list(
        self, *, host_id: HostId | None = None, states: Iterable[SandboxState] | None = None
    ) -> Sequence[Sandbox]:
        """Those not GONE unless states say otherwise; oldest first."""

    def place(self, new: NewSandbox, now: datetime) -> Sandbox:
        """The intent: pick a host with a free slot that meets the wish (the best of a few, by
        pool.rank) and insert a CREATING sandbox with the next port of that host, round-robin over
        the port range, that no sandbox but GONE ones holds. Slots can't be oversubscribed by
        concurrent callers. What it reads doesn't grow with the pool. Raises errors.NoCapacity."""

    def place_for(self, session: Session, new: NewSandbox, now: datetime) -> Sandbox:
        """`place`, and save `session` (already moved, and pointing at the new sandbox) in the same
        transaction. Raises errors.NoCapacity, errors.StaleWrite."""

    def claim(self, session: Session, now: datetime) -> tuple[Session, Sandbox] | None:
        """In one transaction: the oldest WARM, routed sandbox on a host that is UP, neither
        cordoned nor draining, and meets the session's wish becomes CLAIMED with session_id, and
        `session` (already moved to PROVISIONING by the caller) is saved with sandbox_id and,
        unless it has one already, slug. A session that has a slug (recovery) keeps it: the sandbox
        takes it over and is no longer routed. None when there is no warm sandbox (nothing is
        written then). PostgreSQL: FOR UPDATE SKIP LOCKED; SQLite: BEGIN IMMEDIATE. Raises
        errors.StaleWrite (then no sandbox is claimed)."""

    def claim_successor(self, session: Session, now: datetime) -> tuple[Session, Sandbox] | None:
        """The same for a READY session that is to move: the sandbox keeps its own slug and becomes
        `session.move`; the session's sandbox and slug stay as they are. Not on a host in
        `session.refused_by`."""

    def switch(self, session: Session, now: datetime) -> Session:
        """In one transaction: the session's slug goes from its sandbox to the one in
        `session.move`, which becomes its sandbox; the old one gets a slug of its own and stands in
        `move` from then on. Neither is routed until the next table is published. Raises
        errors.StaleWrite when the session or one of the two has changed."""

    def save(self, sandbox: Sandbox, expected: SandboxState) -> Sandbox:
        """Write state, session_id, reason, state_since and container_id if the stored state is
        still `expected`. A move to STOPPING also sets `routed`, whatever it was: a table that is
        being published right now may hold the route, so a withdrawal has to be confirmed first.
        Raises errors.StaleWrite."""

    def set_container(self, sandbox_id: SandboxId, container_id: str) -> None:
        """Record Docker's answer, whatever the state has become meanwhile."""

    def agent_seen(self, sandbox_id: SandboxId, now: datetime) -> Sandbox:
        """Record a visit to the inbox and apply sandbox.settle, in one transaction.
        Raises errors.NotFound."""

    def mark_routes(
        self, live: Mapping[SandboxId, Slug], withdrawn: Iterable[SandboxId], now: datetime
    ) -> Sequence[Sandbox]:
        """Set routed for `live`, given with the slugs that were published (only while in a routed
        state and under that slug: recovery changes it), and clear it for `withdrawn` (only while
        not in a routed state); apply sandbox.settle; returns the sandboxes that changed."""

    def routes(self) -> Sequence[tuple[SandboxId, Route]]:
        """What the RouteTable holds: sandboxes in routed states, with their host's address. None
        of an earlier generation of its host: what was lost with it is never served again."""

    def loose(self) -> Sequence[Sandbox]:
        """Those BROKEN or STOPPING, wherever they are."""

    def warm_counts(self) -> Mapping[str, int]:
        """Sandboxes that a claim could get now, by image."""

    def warming(self) -> int:
        """CREATING for the warm pool."""

    def unsettled_routes(self) -> bool:
        """Whether a publish is due: routed states not routed yet, or others still routed."""


class Hosts(Protocol):
    """Hosts of the pool."""

    def put(self, host: Host) -> None:
        """Insert or replace by id; names and machine ids are unique. Raises errors.Conflict
        (host_exists, machine_known)."""

    def change(self, host_id: HostId, how: Callable[[Host], Host]) -> Host:
        """Read, have `how` say what it becomes, and write, under a lock on its row; returns it.
        Raises errors.NotFound, and what `how` raises (then nothing is written)."""

    def lose(self, host_id: HostId, now: datetime, reason: str) -> Sequence[Sandbox]:
        """In one transaction: the host is LOST and of its next generation, and all its sandboxes
        are BROKEN unless they are STOPPING already; returns those that are not GONE. Raises
        errors.NotFound, errors.IllegalMove."""

    def remove(self, host_id: HostId) -> None:
        """Delete it with the records of its GONE sandboxes. Raises errors.NotFound,
        errors.Conflict (host_in_use) while any other is there."""

    def get(self, host_id: HostId) -> Host:
        """Raises errors.NotFound."""

    def by_name(self, name: str) -> Host | None: ...

    def list(self) -> Sequence[Host]: ...

    def loads(self) -> Sequence[HostLoad]:
        """Every host with what its sandboxes take: for people and metrics, not for claims."""

    def totals(self) -> PoolTotals:
        """Of hosts that take placements."""

    def room(self, enough: int) -> int:
        """Free slots of hosts that take placements, counted no further than `enough`."""

    def could_take(self, wish: Wish, *, without: Collection[HostId] = ()) -> bool:
        """Whether a host beside those takes placements and meets the wish, free slot or not."""

    def known(self, wish: Wish) -> bool:
        """Whether any host, in whatever state, meets the wish."""


class Changes(Protocol):
    """What users ask of apps that are there."""

    def add(self, change: Change, session: Session, idempotency_key: str | None) -> Session:
        """Insert, and save `session`, which counts it, in the same transaction. Raises
        errors.StaleWrite, errors.NotFound."""

    def find(self, session_id: SessionId, idempotency_key: str) -> Change | None:
        """The one that was asked for with this key."""

    def get(self, session_id: SessionId, number: int) -> Change:
        """Raises errors.NotFound."""

    def list(self, session_id: SessionId) -> Sequence[Change]:
        """Oldest first."""

    def conclude(self, change: Change, session: Session) -> Session:
        """Write how a change ended, and save `session` in the same transaction. Raises
        errors.StaleWrite."""


class Store(Protocol):
    """All of the database. Each call is a transaction of its own."""

    @property
    def sessions(self) -> Sessions: ...
    @property
    def sandboxes(self) -> Sandboxes: ...
    @property
    def hosts(self) -> Hosts: ...
    @property
    def changes(self) -> Changes: ...
    @property
    def bundles(self) -> BundleRecords: ...
    @property
    def logs(self) -> Logs: ...
    @property
    def keys(self) -> Keys: ...
    @property
    def audit(self) -> Audit: ...
    @property
    def leases(self) -> Leases: ...
    @property
    def usage(self) -> Usage: ...
    @property
    def generations(self) -> Generations: ...

    def ping(self) -> None:
        """Raises errors.Temporary when the database is away."""

    def close(self) -> None: ...
