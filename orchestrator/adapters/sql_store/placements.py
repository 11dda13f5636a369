"""Placements: a slot and a port for a new sandbox. sandboxes.py calls `place`.

Each host that is tried gets a transaction of its own, so that nobody holds one host's row while
waiting for another's.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import bindparam, select, text
from sqlalchemy.engine import Connection

from orchestrator.adapters.sql_store import codec, hosts, schema, sessions
from orchestrator.adapters.sql_store.database import Database
from orchestrator.domain import errors, pool
from orchestrator.domain.host import HostLoad
from orchestrator.domain.ids import HostId
from orchestrator.domain.sandbox import Sandbox, SandboxState
from orchestrator.domain.session import Session
from orchestrator.ports import NewSandbox

_h = schema.hosts.c
_b = schema.sandboxes.c

_HOST = (
    select(*codec.HOST, _h.port_cursor)
    .where(_h.id == bindparam("the_host"))
    .with_for_update(key_share=True)
)
_HELD = select(_b.port, _b.state).where(
    _b.host_id == bindparam("the_host"), text(schema.SANDBOX_LIVE)
)
_MOVE_CURSOR = sa.update(schema.hosts).where(_h.id == bindparam("the_host"))


def place(
    database: Database,
    new: NewSandbox,
    port_range: tuple[int, int],
    now: datetime,
    session: Session | None,
) -> Sandbox:
    """Insert `new` where there is most room, and save `session` with it when one is given.
    Raises NoCapacity, StaleWrite."""
    with database.read() as connection:
        candidates = pool.rank(hosts.loads(connection))
    for candidate in candidates:
        host_id = candidate.host.id
        with database.write() as connection:
            port = _free_port(connection, host_id, port_range)
            if port is None:
                continue
            if session is not None:
                sessions.write(connection, session)  # before the row that refers to it
            return _insert(connection, new, host_id, port, now)
    raise errors.NoCapacity("no host has a free slot now: the session waits for one")


def _free_port(connection: Connection, host_id: HostId, port_range: tuple[int, int]) -> int | None:
    """A port on a host that has a slot too; its row is locked until the transaction ends."""
    # What ranked the hosts may be old by now: lock this one, then count again.
    row = connection.execute(_HOST, {"the_host": host_id}).one()
    held = {taken.port: taken.state for taken in connection.execute(_HELD, {"the_host": host_id})}
    starting = sum(state == SandboxState.CREATING for state in held.values())
    load = HostLoad(host=codec.host_of(row), used=len(held), starting=starting)
    return next_port(row.port_cursor, held, port_range) if pool.placeable(load) else None


def _insert(
    connection: Connection, new: NewSandbox, host_id: HostId, port: int, now: datetime
) -> Sandbox:
    sandbox = Sandbox(
        id=new.id,
        host_id=host_id,
        session_id=new.session_id,
        state=SandboxState.CREATING,
        slug=new.slug,
        port=port,
        image=new.image,
        container_id=None,
        agent_seen_at=None,
        routed=False,
        reason="",
        created_at=now,
        state_since=now,
    )
    connection.execute(sa.insert(schema.sandboxes), codec.sandbox_values(sandbox))
    connection.execute(_MOVE_CURSOR, {"the_host": host_id, "port_cursor": port})
    return sandbox


def next_port(cursor: int, held: Collection[int], port_range: tuple[int, int]) -> int | None:
    """The first port after `cursor` that nobody holds, round and round; None when all are held.

    Round-robin keeps a port idle for as long as possible: what still points at its last sandbox
    (a browser, a proxy's open connection) should find nothing there, not somebody else's app.
    """
    low, high = port_range
    after = cursor if low <= cursor <= high else high
    size = high - low + 1
    ports = (low + (after - low + step) % size for step in range(1, size + 1))
    return next((port for port in ports if port not in held), None)
