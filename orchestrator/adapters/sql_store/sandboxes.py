"""Sandboxes and claims: ports.Sandboxes on SQL. The store hands it out; placements.py has `place`.

On PostgreSQL rows are locked in one order, so that no two calls wait for each other: host, then
sandboxes by id, then session. A session is written before a sandbox that refers to it: the foreign
key takes a weak lock on the session, and two that hold it can't both make it a strong one. SQLite
has one writer and needs no order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam, func, select, text
from sqlalchemy.engine import Connection

from orchestrator.adapters.sql_store import codec, hosts, placements, schema, sessions
from orchestrator.adapters.sql_store.database import Database, Lookup
from orchestrator.domain import errors, ids
from orchestrator.domain.ids import HostId, SandboxId, Slug
from orchestrator.domain.pool.host import Drain, HostState
from orchestrator.domain.pool.routes import Route
from orchestrator.domain.pool.sandbox import ROUTED_STATES, Sandbox, SandboxState, settle
from orchestrator.domain.sessions.session import Move, Session
from orchestrator.ports import NewSandbox

_SEEN_ENOUGH = timedelta(seconds=10)  # a younger visit need not be written again

_b = schema.sandboxes.c
_LIVE = text(f"sandboxes.{schema.SANDBOX_LIVE}")
_ROUTED = _b.state.in_([state.value for state in sorted(ROUTED_STATES)])

# Of a claim. A host that is only short of something may well serve what it has warm already.
_ACTIVE = (
    schema.hosts.c.state == HostState.UP.value,
    ~schema.hosts.c.cordoned,
    schema.hosts.c.drain == Drain.NONE.value,
)
# Behind every visit of an agent.
_GET = Lookup(select(*codec.SANDBOX).where(_b.id == bindparam("sandbox_id")))
_GET_LOCKED = _GET.query.with_for_update()
_CLAIMABLE = (
    select(*codec.SANDBOX)
    .join(schema.hosts, schema.hosts.c.id == _b.host_id)
    .where(text("sandboxes.state = 'warm' AND sandboxes.routed"), *_ACTIVE)
    .order_by(_b.created_at, _b.id)
    .limit(1)
    .with_for_update(of=schema.sandboxes, skip_locked=True)
)
_UPDATE = sa.update(schema.sandboxes).where(_b.id == bindparam("sandbox_id"))
_UNSETTLED = text(schema.SANDBOX_UNSETTLED)
_UNSETTLED_LOCKED = select(*codec.SANDBOX).where(_UNSETTLED).order_by(_b.id).with_for_update()
_ANY_UNSETTLED = select(sa.exists().where(_UNSETTLED).select_from(schema.sandboxes))
_ROUTES = (
    select(_b.id, _b.slug, schema.hosts.c.publish_address, _b.port)
    .join(schema.hosts, schema.hosts.c.id == _b.host_id)
    # The fence: what a lost host had is of an earlier generation, whatever else says of it.
    .where(_LIVE, _ROUTED, _b.generation == schema.hosts.c.generation)
)
_GIVE_BACK = (
    sa.update(schema.hosts)
    .where(schema.hosts.c.id == bindparam("the_host"))
    .values(used=schema.hosts.c.used - 1)
)
_WARM = (
    select(_b.image, func.count())
    .join(schema.hosts, schema.hosts.c.id == _b.host_id)
    .where(text("sandboxes.state = 'warm' AND sandboxes.routed"), *_ACTIVE)
    .group_by(_b.image)
)
# A filter, not a condition: SQLite would rather find all that ever had no session.
_WARMING = select(func.count().filter(_b.session_id.is_(None))).where(
    text(f"sandboxes.{schema.SANDBOX_CREATING}")
)
_LOOSE = select(*codec.SANDBOX).where(text(schema.SANDBOX_LOOSE)).order_by(_b.id)


class SqlSandboxes:
    """ports.Sandboxes."""

    def __init__(self, database: Database, port_range: tuple[int, int]) -> None:
        self._database = database
        self._port_range = port_range

    def get(self, sandbox_id: SandboxId) -> Sandbox:
        return _found(self._database.first(_GET, sandbox_id), sandbox_id)

    def list(
        self, *, host_id: HostId | None = None, states: Iterable[SandboxState] | None = None
    ) -> Sequence[Sandbox]:
        query = select(*codec.SANDBOX).order_by(_b.created_at, _b.id)
        wanted = None if states is None else {state.value for state in states}
        if wanted is not None:
            query = query.where(_b.state.in_(sorted(wanted)))
        if wanted is None or SandboxState.GONE.value not in wanted:
            query = query.where(_LIVE)  # said even when implied: the index is found by it
        if host_id is not None:
            query = query.where(_b.host_id == host_id)
        with self._database.read() as connection:
            return [codec.sandbox_of(row) for row in connection.execute(query)]

    def place(self, new: NewSandbox, now: datetime) -> Sandbox:
        return placements.place(self._database, new, self._port_range, now, None)

    def place_for(self, session: Session, new: NewSandbox, now: datetime) -> Sandbox:
        return placements.place(self._database, new, self._port_range, now, session)

    def claim(self, session: Session, now: datetime) -> tuple[Session, Sandbox] | None:
        query = _CLAIMABLE.where(*hosts.meeting(session.wish)) if session.wish else _CLAIMABLE
        with self._database.write() as connection:
            row = connection.execute(query).first()
            if row is None:
                return None
            warm = codec.sandbox_of(row)
            slug = session.slug or warm.slug
            claimed = replace(
                warm.transition(SandboxState.CLAIMED, now),
                session_id=session.id,
                slug=slug,
                routed=slug == warm.slug,  # another slug has to be published first
            )
            theirs = replace(session, sandbox_id=claimed.id, slug=slug)
            saved = sessions.write(connection, theirs)  # before the row that refers to it
            _write(connection, claimed)
            return saved, claimed

    def claim_successor(self, session: Session, now: datetime) -> tuple[Session, Sandbox] | None:
        query = _CLAIMABLE.where(*hosts.meeting(session.wish, without=session.refused_by))
        with self._database.write() as connection:
            row = connection.execute(query).first()
            if row is None:
                return None
            claimed = replace(
                codec.sandbox_of(row).transition(SandboxState.CLAIMED, now), session_id=session.id
            )
            saved = sessions.write(connection, replace(session, move=Move(sandbox_id=claimed.id)))
            _write(connection, claimed)
            return saved, claimed

    def switch(self, session: Session, now: datetime) -> Session:
        assert session.move is not None
        assert session.sandbox_id is not None
        old_id, new_id = session.sandbox_id, session.move.sandbox_id
        with self._database.write() as connection:
            rows = {
                sandbox_id: connection.execute(_GET_LOCKED, {"sandbox_id": sandbox_id}).first()
                for sandbox_id in sorted((old_id, new_id))
            }
            old, new = (_found(rows[one], one) for one in (old_id, new_id))
            if {old.state, new.state} != {SandboxState.CLAIMED}:
                raise errors.StaleWrite("one of the two sandboxes has changed: look again")
            moved = Move(sandbox_id=old_id, switched_at=now)
            saved = sessions.write(connection, replace(session, sandbox_id=new_id, move=moved))
            # The old one lets go of the slug before the new one takes it: it is unique.
            _write(connection, replace(old, slug=ids.new_slug(), routed=False))
            _write(connection, replace(new, slug=old.slug, routed=False))
            return saved

    def save(self, sandbox: Sandbox, expected: SandboxState) -> Sandbox:
        """As the port says; a container id that is known stays, for who saves may not know it."""
        statement = (
            sa.update(schema.sandboxes)
            .where(_b.id == sandbox.id, _b.state == expected.value)
            .values(
                state=sandbox.state.value,
                session_id=sandbox.session_id,
                reason=sandbox.reason,
                state_since=sandbox.state_since,
                container_id=func.coalesce(sandbox.container_id, _b.container_id),
                # A table that is being published right now may hold its route.
                **({"routed": True} if sandbox.state is SandboxState.STOPPING else {}),
            )
            .returning(*codec.SANDBOX)
        )
        with self._database.write() as connection:
            if sandbox.state is SandboxState.GONE:  # the host's row before the sandbox's
                connection.execute(_GIVE_BACK, {"the_host": sandbox.host_id})
            row = connection.execute(statement).first()
            if row is None:
                raise errors.StaleWrite(
                    f"sandbox {sandbox.id} is not {expected} any more: read it again"
                )
            return codec.sandbox_of(row)

    def set_container(self, sandbox_id: SandboxId, container_id: str) -> None:
        with self._database.write() as connection:
            _update(connection, sandbox_id, container_id=container_id)

    def agent_seen(self, sandbox_id: SandboxId, now: datetime) -> Sandbox:
        known = self.get(sandbox_id)
        if _nothing_new(known, now):
            return known
        with self._database.write() as connection:
            row = connection.execute(_GET_LOCKED, {"sandbox_id": sandbox_id}).first()
            seen = replace(_found(row, sandbox_id), agent_seen_at=now)
            settled = settle(seen, now)
            _update(connection, sandbox_id, agent_seen_at=now, **_state_of(settled))
            return settled

    def mark_routes(
        self, live: Mapping[SandboxId, Slug], withdrawn: Iterable[SandboxId], now: datetime
    ) -> Sequence[Sandbox]:
        """As the port says. Starts from the few that are unsettled, not from the many named."""
        named_withdrawn = frozenset(withdrawn)
        changed = []
        with self._database.write() as connection:
            for row in connection.execute(_UNSETTLED_LOCKED).all():
                sandbox = codec.sandbox_of(row)
                routable = sandbox.state in ROUTED_STATES
                published = live.get(sandbox.id) == sandbox.slug
                if not (published if routable else sandbox.id in named_withdrawn):
                    continue
                settled = settle(replace(sandbox, routed=routable), now)
                _update(connection, sandbox.id, routed=routable, **_state_of(settled))
                changed.append(settled)
        return changed

    def routes(self) -> Sequence[tuple[SandboxId, Route]]:
        with self._database.read() as connection:
            rows = connection.execute(_ROUTES)
            return [
                (sandbox_id, Route(slug=slug, address=address, port=port))
                for sandbox_id, slug, address, port in rows
            ]

    def loose(self) -> Sequence[Sandbox]:
        with self._database.read() as connection:
            return [codec.sandbox_of(row) for row in connection.execute(_LOOSE)]

    def warm_counts(self) -> Mapping[str, int]:
        with self._database.read() as connection:
            return dict(connection.execute(_WARM).all())

    def warming(self) -> int:
        with self._database.read() as connection:
            count: int = connection.execute(_WARMING).scalar_one()
            return count

    def unsettled_routes(self) -> bool:
        with self._database.read() as connection:
            return bool(connection.execute(_ANY_UNSETTLED).scalar_one())


def _found(row: Sequence[Any] | None, sandbox_id: SandboxId) -> Sandbox:
    if row is None:
        raise errors.NotFound(f"there is no sandbox {sandbox_id}")
    return codec.sandbox_of(row)


def _nothing_new(known: Sandbox, now: datetime) -> bool:
    """Whether a visit now would tell the database nothing that it doesn't know closely enough."""
    last = known.agent_seen_at
    return last is not None and now - last < _SEEN_ENOUGH and settle(known, now) is known


def _state_of(sandbox: Sandbox) -> dict[str, Any]:
    return {"state": sandbox.state.value, "state_since": sandbox.state_since}


def _update(connection: Connection, sandbox_id: SandboxId, **values: Any) -> None:
    connection.execute(_UPDATE, {"sandbox_id": sandbox_id, **values})


def _write(connection: Connection, sandbox: Sandbox) -> None:
    """What a claim and a switch change of a sandbox whose row is locked."""
    _update(
        connection,
        sandbox.id,
        **_state_of(sandbox),
        session_id=sandbox.session_id,
        slug=sandbox.slug,
        routed=sandbox.routed,
    )
