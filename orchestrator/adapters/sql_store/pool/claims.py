"""Claims: a warm sandbox is given to a session in one transaction. Also the switch of a move.

SqlSandboxes calls these for ports.Sandboxes. Its module says in which order rows are locked.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam, select, text
from sqlalchemy.engine import Connection

from orchestrator.adapters.sql_store import codec, schema, sessions
from orchestrator.adapters.sql_store.database import Database
from orchestrator.adapters.sql_store.pool import hosts
from orchestrator.adapters.sql_store.prepared import Write
from orchestrator.domain import errors, ids
from orchestrator.domain.ids import HostId, SandboxId
from orchestrator.domain.pool.sandbox import Sandbox, SandboxState
from orchestrator.domain.sessions.session import Move, Session

_b = schema.sandboxes.c

_CLAIMABLE = (
    select(*codec.SANDBOX)
    .join(schema.hosts, schema.hosts.c.id == _b.host_id)
    .where(text("sandboxes.state = 'warm' AND sandboxes.routed"), *hosts.CLAIM_HOST)
    .order_by(_b.created_at, _b.id)
    .limit(1)
    .with_for_update(of=schema.sandboxes, skip_locked=True)
)
_LOCKED = select(*codec.SANDBOX).where(_b.id == bindparam("sandbox_id")).with_for_update()
_UPDATE = Write(sa.update(schema.sandboxes).where(_b.id == bindparam("sandbox_id")))


def claim(
    database: Database, session: Session, now: datetime, without: Collection[HostId]
) -> tuple[Session, Sandbox] | None:
    """ports.Sandboxes.claim."""
    conditions = hosts.conditions_for(session.wish, without={*without, *session.lost_on})
    query = _CLAIMABLE.where(*conditions) if conditions else _CLAIMABLE
    with database.read() as connection:
        if connection.execute(query).first() is None:
            return None  # as in all of a burst: nobody has to wait for the one writer of SQLite
    with database.write() as connection:
        row = connection.execute(query).first()
        if row is None:
            return None
        warm = codec.sandbox_of(row)
        slug = session.slug or warm.slug
        claimed = replace(
            warm.transition(SandboxState.CLAIMED, now),
            session_id=session.id,
            slug=slug,
            routed=slug == warm.slug,  # a different slug must be published first
        )
        # The session before the sandbox that refers to it: see the docstring of sandboxes.py.
        owner = replace(session, sandbox_id=claimed.id, slug=slug)
        saved = sessions.write(connection, owner)
        _write(connection, claimed)
        return saved, claimed


def claim_successor(
    database: Database, session: Session, now: datetime
) -> tuple[Session, Sandbox] | None:
    """ports.Sandboxes.claim_successor."""
    avoided = {*session.refused_by, *session.lost_on}
    query = _CLAIMABLE.where(*hosts.conditions_for(session.wish, without=avoided))
    with database.write() as connection:
        row = connection.execute(query).first()
        if row is None:
            return None
        claimed = replace(
            codec.sandbox_of(row).transition(SandboxState.CLAIMED, now), session_id=session.id
        )
        saved = sessions.write(connection, replace(session, move=Move(sandbox_id=claimed.id)))
        _write(connection, claimed)
        return saved, claimed


def switch(database: Database, session: Session, now: datetime) -> Session:
    """ports.Sandboxes.switch."""
    assert session.move is not None
    assert session.sandbox_id is not None
    old_id, new_id = session.sandbox_id, session.move.sandbox_id
    with database.write() as connection:
        rows = {
            sandbox_id: connection.execute(_LOCKED, {"sandbox_id": sandbox_id}).first()
            for sandbox_id in sorted((old_id, new_id))
        }
        old = sandbox_of(rows[old_id], old_id)
        new = sandbox_of(rows[new_id], new_id)
        if {old.state, new.state} != {SandboxState.CLAIMED}:
            raise errors.StaleWrite("one of the two sandboxes has changed: read them again")
        move = Move(sandbox_id=old_id, switched_at=now)
        saved = sessions.write(connection, replace(session, sandbox_id=new_id, move=move))
        # Slugs are unique: the old sandbox releases this one before the new sandbox takes it.
        _write(connection, replace(old, slug=ids.new_slug(), routed=False))
        _write(connection, replace(new, slug=old.slug, routed=False))
        return saved


def sandbox_of(row: Sequence[Any] | None, sandbox_id: SandboxId) -> Sandbox:
    """The row as a Sandbox. Raises NotFound if there is no row."""
    if row is None:
        raise errors.NotFound(f"there is no sandbox {sandbox_id}")
    return codec.sandbox_of(row)


def _write(connection: Connection, sandbox: Sandbox) -> None:
    """Write what a claim or a switch changes. The caller has locked the row."""
    values = {
        "sandbox_id": sandbox.id,
        "state": sandbox.state.value,
        "state_since": sandbox.state_since,
        "session_id": sandbox.session_id,
        "slug": sandbox.slug,
        "routed": sandbox.routed,
    }
    _UPDATE.run(connection, values)
