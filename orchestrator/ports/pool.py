"""Ports to the pool in the database: sandboxes and hosts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from orchestrator.domain.ids import HostId, SandboxId
from orchestrator.domain.pool.cpu_limits import CpuHolder
from orchestrator.domain.pool.host import Host, HostKind, HostLoad, Wish
from orchestrator.domain.pool.published_ports import PublishedPort
from orchestrator.domain.pool.refill import PoolTotals
from orchestrator.domain.pool.routes import Route, StoredRoutes
from orchestrator.domain.pool.sandbox import Sandbox, SandboxState
from orchestrator.domain.pool.silence import AgentGroup
from orchestrator.domain.sessions.session import Session
from orchestrator.ports.store_inputs import NewSandbox


class Sandboxes(Protocol):
    """Sandboxes, their claims and placements."""

    def get(self, sandbox_id: SandboxId) -> Sandbox:
        """Raises errors.NotFound."""

    def list(
        self, *, host_id: HostId | None = None, states: Iterable[SandboxState] | None = None
    ) -> Sequence[Sandbox]:
        """Sandboxes in these states, by default in all but GONE. Oldest first."""

    def place(self, new: NewSandbox, now: datetime) -> Sandbox:
        """Choose a host and insert a CREATING sandbox there.

        The host has a free slot, meets the wish and is the best of a few by placement.rank. The
        port is the next one of that host, round-robin over the port range, that no sandbox holds
        but GONE ones. Concurrent callers can't take more slots than there are. The number of rows
        read doesn't grow with the pool. Raises errors.NoCapacity.
        """

    def place_for(self, session: Session, new: NewSandbox, now: datetime) -> Sandbox:
        """The same as `place`, and save `session` in the same transaction.

        The caller has already put the session into its next state, and it names the new sandbox.
        Raises errors.NoCapacity, errors.StaleWrite.
        """

    def change_port(self, sandbox: Sandbox, now: datetime) -> Sandbox | None:
        """Set the port of a sandbox aside, because another program holds it, and give it the next.

        The sandbox is CREATING and has no container. It is no longer routed. Returns None if its
        host has no other port: then that is the host's shortage. Raises errors.StaleWrite.
        """

    def has_free_port(self, host: Host, now: datetime) -> bool:
        """Whether a new sandbox on this host would get a port."""

    def claim(
        self, session: Session, now: datetime, *, without: Collection[HostId] = ()
    ) -> tuple[Session, Sandbox] | None:
        """Give the oldest suitable warm sandbox to the session, in one transaction.

        Suitable is a WARM, routed sandbox on a host that accepts claims, meets the session's wish
        and is neither in `without` nor in `session.lost_on`. It becomes CLAIMED with the session's
        id. `session`, which the caller has put into PROVISIONING, is saved with the sandbox's id
        and slug. A session that recovers keeps its own slug: the sandbox takes that one and is no
        longer routed.

        Returns None, and writes nothing, if there is no such sandbox. Raises errors.StaleWrite, and
        claims nothing, if the session has changed. PostgreSQL uses FOR UPDATE SKIP LOCKED, SQLite
        BEGIN IMMEDIATE.
        """

    def claim_successor(self, session: Session, now: datetime) -> tuple[Session, Sandbox] | None:
        """The same for a READY session that moves to another host.

        The sandbox keeps its own slug and becomes `session.move`. The session keeps its sandbox and
        its slug. Hosts in `session.refused_by` and in `session.lost_on` are left out.
        """

    def switch(self, session: Session, now: datetime) -> Session:
        """Exchange the session's sandbox with the one in `session.move`, in one transaction.

        The new sandbox gets the session's slug, the old one a new slug. Neither is routed until the
        next table is published. Raises errors.StaleWrite if the session or one of the two sandboxes
        has changed.
        """

    def save(self, sandbox: Sandbox, expected: SandboxState) -> Sandbox:
        """Write state, session_id, reason, state_since and container_id.

        A sandbox that becomes STOPPING is also marked `routed`: the table that is being published
        right now may hold its route, so its withdrawal must be confirmed first. If it has no
        session, it also gets a new slug: its last session needs the old one elsewhere. Raises
        errors.StaleWrite if the stored state is no longer `expected`.
        """

    def abandon(self, sandbox: Sandbox, expected: SandboxState, session: Session) -> Session:
        """The same as `save`, for a sandbox that its session gives up, and save `session` in the
        same transaction. Raises errors.StaleWrite if one of the two has changed.
        """

    def set_container(self, sandbox_id: SandboxId, container_id: str) -> None:
        """Record the id that Docker returned, whatever state the sandbox is in by now."""

    def agent_seen(self, sandbox_id: SandboxId, now: datetime) -> Sandbox:
        """Record that the agent polled its inbox, and apply sandbox.finish_creating.

        Both in one transaction. Raises errors.NotFound.
        """

    def mark_routes(
        self, live: Mapping[SandboxId, Route], withdrawn: Iterable[SandboxId], now: datetime
    ) -> Sequence[Sandbox]:
        """Record a published table, apply sandbox.finish_creating, and return what changed.

        Sandboxes in `live` become routed, if they are still in a routed state and have the slug and
        the port that were published (recovery and `change_port` change them). Those in `withdrawn`
        are no longer routed, unless they are in a routed state.
        """

    def routes(self) -> StoredRoutes:
        """The routes of all sandboxes in routed states, for the next RouteTable, and what of them
        isn't published. All at one moment.

        Sandboxes of an earlier generation of their host are left out: what was lost with a host is
        never served again.
        """

    def unstarted(self) -> Sequence[Sandbox]:
        """The CREATING sandboxes that have no container yet: first those of sessions, then those of
        the warm pool, oldest first."""

    def set_raised(self, sandbox_id: SandboxId, *, raised: bool) -> None:
        """Record which CPU limit the sandbox has, whatever state it is in by now."""

    def cpu_holders(self) -> Sequence[CpuHolder]:
        """Sandboxes whose CPU limit may be the wrong one: CLAIMED ones that are raised or whose
        session is in progress, and WARM ones that aren't raised. Without those that have no
        container yet."""

    def broken_or_stopping(self) -> Sequence[Sandbox]:
        """All BROKEN and STOPPING sandboxes of all hosts."""

    def warm_counts(self) -> Mapping[str, int]:
        """How many sandboxes a claim could get now, by image."""

    def count_warming(self, placed_since: datetime) -> int:
        """How many sandboxes are CREATING for the warm pool, of those placed since then."""

    def count_cold(self) -> int:
        """How many sandboxes are CREATING for sessions."""

    def agent_groups(self, overdue_before: datetime) -> Sequence[AgentGroup]:
        """The agents of WARM and CLAIMED sandboxes by host and owner. Those that were last heard
        before then are overdue."""

    def published_ports(self) -> Sequence[PublishedPort]:
        """Where the proxy reaches the WARM and CLAIMED sandboxes of UP and SUSPECT hosts, of their
        present generation."""

    def has_unpublished_routes(self) -> bool:
        """Whether a table must be published: a route is missing or not withdrawn yet."""


class Hosts(Protocol):
    """The hosts of the pool."""

    def put(self, host: Host) -> None:
        """Insert a host, or replace the one with its id.

        Raises errors.Conflict if another host has its name (host_exists) or its machine id
        (machine_known).
        """

    def change(self, host_id: HostId, change: Callable[[Host], Host]) -> Host:
        """Read the host, write what `change` makes of it, and return that, under a lock on its row.

        Raises errors.NotFound, and what `change` raises; then nothing is written.
        """

    def lose(self, host_id: HostId, now: datetime, reason: str) -> Sequence[Sandbox]:
        """Mark the host LOST, start its next generation, and mark its sandboxes BROKEN.

        All in one transaction. STOPPING sandboxes stay STOPPING. Returns all sandboxes that are
        not GONE. Raises errors.NotFound, errors.IllegalTransition.
        """

    def remove(self, host_id: HostId) -> None:
        """Delete the host with the rows of its GONE sandboxes.

        Raises errors.NotFound, and errors.Conflict (host_in_use) if it has any other sandbox.
        """

    def seen(self, host_ids: Collection[HostId], now: datetime) -> None:
        """Write `seen_at` of these hosts, of those that are stored."""

    def get(self, host_id: HostId) -> Host:
        """Raises errors.NotFound."""

    def by_name(self, name: str) -> Host | None: ...

    def list(self) -> Sequence[Host]: ...

    def loads(self) -> Sequence[HostLoad]:
        """Every host with what its sandboxes take. For people and metrics, not for claims."""

    def totals(self) -> PoolTotals:
        """Sums over the hosts that take placements."""

    def free_slots(self, limit: int) -> int:
        """How many slots are free on hosts that take placements, as far as sandboxes of sessions
        could be started in them now. Counts no further than `limit`."""

    def kinds(self) -> Sequence[HostKind]:
        """All hosts, by what wishes can tell apart. Reads every host: ask only if there are wishes
        or sessions that get no warm sandbox."""

    def any_accepts(
        self, wish: Wish, *, without: Collection[HostId] = (), with_room: bool = False
    ) -> bool:
        """Whether a host, except `without`, takes placements and meets the wish. It may be full,
        unless it must be one `with_room`."""

    def any_meets(self, wish: Wish) -> bool:
        """Whether any host meets the wish, in whatever state it is."""
