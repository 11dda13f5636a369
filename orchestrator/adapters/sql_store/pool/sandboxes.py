"""Sandboxes: ports.Sandboxes on SQL. The store creates it. See also claims.py and placements.py.

On PostgreSQL all calls lock rows in the same order, so that they can't deadlock: the host, then
sandboxes by id, then the session. A session is written before a sandbox that refers to it: writing
the sandbox takes a weak lock on the session (for the foreign key), and two transactions that hold
the weak lock can't both upgrade it. SQLite has one writer and needs no order.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam, func, select, text
from sqlalchemy.engine import Connection

from orchestrator.adapters.sql_store import codec, schema, sessions
from orchestrator.adapters.sql_store.database import Database
from orchestrator.adapters.sql_store.pool import claims, cpu_holders, hosts, placements
from orchestrator.adapters.sql_store.prepared import Lookup, Write, look_up
from orchestrator.domain import errors, ids
from orchestrator.domain.ids import HostId, SandboxId
from orchestrator.domain.pool.cpu_limits import CpuHolder
from orchestrator.domain.pool.host import Host, HostState
from orchestrator.domain.pool.published_ports import PublishedPort
from orchestrator.domain.pool.routes import Route, StoredRoutes
from orchestrator.domain.pool.sandbox import ROUTED_STATES, Sandbox, SandboxState, finish_creating
from orchestrator.domain.pool.silence import AgentGroup
from orchestrator.domain.sessions.session import Session
from orchestrator.ports import NewSandbox

_VISIT_PRECISION = timedelta(seconds=10)  # a visit sooner than this after the last isn't written

_b = schema.sandboxes.c
_LIVE = text(f"sandboxes.{schema.SANDBOX_LIVE}")
_ROUTABLE = _b.state.in_([state.value for state in sorted(ROUTED_STATES)])

# Runs at every visit of an agent.
_GET = Lookup(select(*codec.SANDBOX).where(_b.id == bindparam("sandbox_id")))
_GET_LOCKED = Lookup(_GET.query.with_for_update())
_UPDATE = sa.update(schema.sandboxes).where(_b.id == bindparam("sandbox_id"))
_VISIT = Write(_UPDATE)
_UNSETTLED = text(schema.SANDBOX_UNSETTLED)
_UNSETTLED_LOCKED = select(*codec.SANDBOX).where(_UNSETTLED).order_by(_b.id).with_for_update()
_ANY_UNSETTLED = select(sa.exists().where(_UNSETTLED).select_from(schema.sandboxes))
# One statement, so that no sandbox is both in the table and withdrawn, nor neither of them.
_ROUTES = (
    select(
        _b.id,
        _b.slug,
        schema.hosts.c.publish_address,
        _b.port,
        _b.routed,
        _ROUTABLE.label("is_routable"),
    )
    .join(schema.hosts, schema.hosts.c.id == _b.host_id)
    # The fence: a sandbox of an earlier generation was lost with its host. Whatever its state
    # says, it is never served again.
    .where(
        _LIVE,
        sa.or_(
            sa.and_(_ROUTABLE, _b.generation == schema.hosts.c.generation),
            sa.and_(sa.not_(_ROUTABLE), _b.routed),
        ),
    )
)
_RELEASE_SLOT = (
    sa.update(schema.hosts)
    .where(schema.hosts.c.id == bindparam("the_host"))
    .values(used=schema.hosts.c.used - 1)
)
_WARM_COUNTS = (
    select(_b.image, func.count())
    .join(schema.hosts, schema.hosts.c.id == _b.host_id)
    .where(text("sandboxes.state = 'warm' AND sandboxes.routed"), *hosts.CLAIM_HOST)
    .group_by(_b.image)
)
# A filter, not a condition: with a condition SQLite uses the index on session_id, and reads every
# sandbox that never had a session.
_WARMING = select(
    func.count().filter(_b.session_id.is_(None), _b.created_at >= bindparam("placed_since"))
).where(text(f"sandboxes.{schema.SANDBOX_CREATING}"))
_COLD = select(func.count(_b.session_id)).where(text(f"sandboxes.{schema.SANDBOX_CREATING}"))
_UNSTARTED = (
    select(*codec.SANDBOX)
    .where(text(f"sandboxes.{schema.SANDBOX_CREATING}"), _b.container_id.is_(None))
    # Somebody waits for those of sessions.
    .order_by(_b.session_id.is_(None), _b.created_at, _b.id)
)
_OWNER = func.coalesce(schema.sessions.c.user_id, _b.id)
_AGENT_GROUPS = (
    select(
        _b.host_id,
        _OWNER,
        func.count(),
        func.count().filter(_b.agent_seen_at < bindparam("overdue_before")),
    )
    .join(schema.sessions, schema.sessions.c.id == _b.session_id, isouter=True)
    .where(_LIVE, _b.state.in_([SandboxState.WARM.value, SandboxState.CLAIMED.value]))
    .group_by(_b.host_id, _OWNER)
)
_PUBLISHED_PORTS = (
    select(
        _b.id,
        _b.host_id,
        _OWNER,
        _b.state,
        schema.hosts.c.publish_address,
        _b.port,
        schema.hosts.c.state,
        schema.hosts.c.state_since,
    )
    .join(schema.hosts, schema.hosts.c.id == _b.host_id)
    .join(schema.sessions, schema.sessions.c.id == _b.session_id, isouter=True)
    .where(
        _LIVE,
        _b.state.in_([SandboxState.WARM.value, SandboxState.CLAIMED.value]),
        _b.generation == schema.hosts.c.generation,
        schema.hosts.c.state.in_([HostState.UP.value, HostState.SUSPECT.value]),
    )
)
_BROKEN_OR_STOPPING = (
    select(*codec.SANDBOX).where(text(schema.SANDBOX_BROKEN_OR_STOPPING)).order_by(_b.id)
)


class SqlSandboxes:
    """ports.Sandboxes."""

    def __init__(self, database: Database, port_range: tuple[int, int]) -> None:
        self._database = database
        self._port_range = port_range

    def get(self, sandbox_id: SandboxId) -> Sandbox:
        return claims.sandbox_of(self._database.first(_GET, sandbox_id=sandbox_id), sandbox_id)

    def list(
        self, *, host_id: HostId | None = None, states: Iterable[SandboxState] | None = None
    ) -> Sequence[Sandbox]:
        query = select(*codec.SANDBOX).order_by(_b.created_at, _b.id)
        names = None if states is None else {state.value for state in states}
        if names is not None:
            query = query.where(_b.state.in_(sorted(names)))
        if names is None or SandboxState.GONE.value not in names:
            query = query.where(_LIVE)  # even if `names` implies it: the index needs it
        if host_id is not None:
            query = query.where(_b.host_id == host_id)
        with self._database.read() as connection:
            return [codec.sandbox_of(row) for row in connection.execute(query)]

    def place(self, new: NewSandbox, now: datetime) -> Sandbox:
        return placements.place(self._database, new, self._port_range, now, None)

    def place_for(self, session: Session, new: NewSandbox, now: datetime) -> Sandbox:
        return placements.place(self._database, new, self._port_range, now, session)

    def change_port(self, sandbox: Sandbox, now: datetime) -> Sandbox | None:
        return placements.change_port(self._database, sandbox, self._port_range, now)

    def has_free_port(self, host: Host, now: datetime) -> bool:
        return placements.has_free_port(self._database, host, self._port_range, now)

    def claim(
        self, session: Session, now: datetime, *, without: Collection[HostId] = ()
    ) -> tuple[Session, Sandbox] | None:
        return claims.claim(self._database, session, now, without)

    def claim_successor(self, session: Session, now: datetime) -> tuple[Session, Sandbox] | None:
        return claims.claim_successor(self._database, session, now)

    def switch(self, session: Session, now: datetime) -> Session:
        return claims.switch(self._database, session, now)

    def save(self, sandbox: Sandbox, expected: SandboxState) -> Sandbox:
        """As the port says. A container id that the database has stays if `sandbox` has none: the
        caller may have read the sandbox before Docker answered."""
        with self._database.write() as connection:
            return _save(connection, sandbox, expected)

    def abandon(self, sandbox: Sandbox, expected: SandboxState, session: Session) -> Session:
        with self._database.write() as connection:
            _save(connection, sandbox, expected)  # lock order: sandbox, then session
            return sessions.write(connection, session)

    def set_container(self, sandbox_id: SandboxId, container_id: str) -> None:
        with self._database.write() as connection:
            _update(connection, sandbox_id, container_id=container_id)

    def set_raised(self, sandbox_id: SandboxId, *, raised: bool) -> None:
        with self._database.write() as connection:
            _update(connection, sandbox_id, raised=raised)

    def cpu_holders(self) -> Sequence[CpuHolder]:
        with self._database.read() as connection:
            return cpu_holders.read(connection)

    def agent_seen(self, sandbox_id: SandboxId, now: datetime) -> Sandbox:
        current = self.get(sandbox_id)
        if not _must_write_visit(current, now):
            return current
        with self._database.write() as connection:
            row = look_up(connection, _GET_LOCKED, sandbox_id=sandbox_id)
            visited = replace(claims.sandbox_of(row, sandbox_id), agent_seen_at=now)
            settled = finish_creating(visited, now)
            values = {"sandbox_id": sandbox_id, "agent_seen_at": now, **_state_of(settled)}
            _VISIT.run(connection, values)
            return settled

    def mark_routes(
        self, live: Mapping[SandboxId, Route], withdrawn: Iterable[SandboxId], now: datetime
    ) -> Sequence[Sandbox]:
        """As the port says. Reads only the few unsettled sandboxes, not all that are named."""
        withdrawn_ids = frozenset(withdrawn)
        changed = []
        with self._database.write() as connection:
            for row in connection.execute(_UNSETTLED_LOCKED).all():
                sandbox = codec.sandbox_of(row)
                routable = sandbox.state in ROUTED_STATES
                published = _is_route_of(live.get(sandbox.id), sandbox)
                if not (published if routable else sandbox.id in withdrawn_ids):
                    continue
                settled = finish_creating(replace(sandbox, routed=routable), now)
                _update(connection, sandbox.id, routed=routable, **_state_of(settled))
                changed.append(settled)
        return changed

    def routes(self) -> StoredRoutes:
        routes: dict[SandboxId, Route] = {}
        unconfirmed, withdrawn = [], []
        with self._database.read() as connection:
            rows = connection.execute(_ROUTES).all()
        for sandbox_id, slug, address, port, routed, is_routable in rows:
            if not is_routable:
                withdrawn.append(sandbox_id)
                continue
            routes[sandbox_id] = Route(slug=slug, address=address, port=port)
            if not routed:
                unconfirmed.append(sandbox_id)
        return StoredRoutes(routes=routes, unconfirmed=unconfirmed, withdrawn=withdrawn)

    def broken_or_stopping(self) -> Sequence[Sandbox]:
        with self._database.read() as connection:
            return [codec.sandbox_of(row) for row in connection.execute(_BROKEN_OR_STOPPING)]

    def unstarted(self) -> Sequence[Sandbox]:
        with self._database.read() as connection:
            return [codec.sandbox_of(row) for row in connection.execute(_UNSTARTED)]

    def warm_counts(self) -> Mapping[str, int]:
        with self._database.read() as connection:
            return dict(connection.execute(_WARM_COUNTS).all())

    def count_warming(self, placed_since: datetime) -> int:
        parameters = {"placed_since": placed_since}
        with self._database.read() as connection:
            count: int = connection.execute(_WARMING, parameters).scalar_one()
            return count

    def count_cold(self) -> int:
        with self._database.read() as connection:
            count: int = connection.execute(_COLD).scalar_one()
            return count

    def agent_groups(self, overdue_before: datetime) -> Sequence[AgentGroup]:
        with self._database.read() as connection:
            rows = connection.execute(_AGENT_GROUPS, {"overdue_before": overdue_before})
            return [
                AgentGroup(host_id=host_id, owner=owner, agents=agents, overdue=overdue)
                for host_id, owner, agents, overdue in rows
            ]

    def published_ports(self) -> Sequence[PublishedPort]:
        with self._database.read() as connection:
            rows = connection.execute(_PUBLISHED_PORTS)
            return [
                PublishedPort(
                    sandbox_id=sandbox_id,
                    host_id=host_id,
                    owner=owner,
                    is_warm=state == SandboxState.WARM.value,
                    address=address,
                    port=port,
                    up_since=host_since if host_state == HostState.UP.value else None,
                )
                for sandbox_id, host_id, owner, state, address, port, host_state, host_since in rows
            ]

    def has_unpublished_routes(self) -> bool:
        with self._database.read() as connection:
            return bool(connection.execute(_ANY_UNSETTLED).scalar_one())


def _save(connection: Connection, sandbox: Sandbox, expected: SandboxState) -> Sandbox:
    """ports.Sandboxes.save, within the caller's transaction."""
    if sandbox.state is SandboxState.GONE:  # lock order: host, then sandbox
        connection.execute(_RELEASE_SLOT, {"the_host": sandbox.host_id})
    is_stopping = sandbox.state is SandboxState.STOPPING
    is_free = is_stopping and sandbox.session_id is None
    statement = (
        sa.update(schema.sandboxes)
        .where(_b.id == sandbox.id, _b.state == expected.value)
        .values(
            state=sandbox.state.value,
            session_id=sandbox.session_id,
            reason=sandbox.reason,
            state_since=sandbox.state_since,
            ended_by_host=sandbox.ended_by_host,
            container_id=func.coalesce(sandbox.container_id, _b.container_id),
            # The route table that is being published right now may hold its route.
            **({"routed": True} if is_stopping else {}),
            # Its session may go on elsewhere, under the slug that this one had.
            **({"slug": ids.new_slug()} if is_free else {}),
        )
        .returning(*codec.SANDBOX)
    )
    row = connection.execute(statement).first()
    if row is None:
        raise errors.StaleWrite(f"sandbox {sandbox.id} is not {expected} any more: read it again")
    return codec.sandbox_of(row)


def _is_route_of(route: Route | None, sandbox: Sandbox) -> bool:
    return route is not None and (route.slug, route.port) == (sandbox.slug, sandbox.port)


def _must_write_visit(sandbox: Sandbox, now: datetime) -> bool:
    """Whether a visit at `now` must be written: the last one is too old, or the state changes."""
    last = sandbox.agent_seen_at
    if last is None or now - last >= _VISIT_PRECISION:
        return True
    return finish_creating(sandbox, now) is not sandbox


def _state_of(sandbox: Sandbox) -> dict[str, Any]:
    return {"state": sandbox.state.value, "state_since": sandbox.state_since}


def _update(connection: Connection, sandbox_id: SandboxId, **values: Any) -> None:
    connection.execute(_UPDATE, {"sandbox_id": sandbox_id, **values})
