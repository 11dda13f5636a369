"""Placements: a slot and a port for a new sandbox. sandboxes.py calls `place`.

What is read doesn't grow with the pool: a few hosts that have room, found by an index from a random
place on, and the sandboxes of those. Each host that is tried gets a transaction of its own, so that
nobody holds one host's row while waiting for another's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import bindparam, select, text
from sqlalchemy.engine import Connection

from orchestrator.adapters.sql_store import codec, hosts, schema, sessions
from orchestrator.adapters.sql_store.database import Database
from orchestrator.domain import errors, ids
from orchestrator.domain.ids import HostId
from orchestrator.domain.pool import placement
from orchestrator.domain.pool.host import HostLoad
from orchestrator.domain.pool.sandbox import Sandbox, SandboxState
from orchestrator.domain.sessions.session import Session
from orchestrator.ports import NewSandbox

_ROUNDS = 3  # of candidates, when those of one round were all busy starting others

_h = schema.hosts.c
_b = schema.sandboxes.c

_HOST = (
    select(*codec.HOST, _h.used, _h.port_cursor)
    .where(_h.id == bindparam("the_host"))
    .with_for_update(key_share=True)
)
_HELD = select(_b.port, _b.state).where(
    _b.host_id == bindparam("the_host"), text(schema.SANDBOX_LIVE)
)
_TAKE = sa.update(schema.hosts).where(_h.id == bindparam("the_host"))


def place(
    database: Database,
    new: NewSandbox,
    port_range: tuple[int, int],
    now: datetime,
    session: Session | None,
) -> Sandbox:
    """Insert `new` on the best of a few hosts, and save `session` with it when one is given.
    Raises NoCapacity, StaleWrite."""
    for host_id in _candidates(database, new):
        with database.write() as connection:
            found = _free_port(connection, host_id, port_range)
            if found is None:
                continue
            load, port = found
            if session is not None:
                sessions.write(connection, session)  # before the row that refers to it
            return _insert(connection, _fitted(new, load), load, port, now)
    raise errors.NoCapacity("no host has a free slot now: the session waits for one")


def _candidates(database: Database, new: NewSandbox) -> Iterator[HostId]:
    """Hosts to try, the best first; each once."""
    seen: set[HostId] = set(new.avoid)
    for _ in range(_ROUNDS):
        with database.read() as connection:
            loads = _sample(connection, new, seen)
        yield from (
            load.host.id
            for load in placement.rank(loads, image=new.image, for_warm=new.session_id is None)
        )
        seen |= {load.host.id for load in loads}
        if len(loads) < placement.CANDIDATES:
            return


def _sample(
    connection: Connection, new: NewSandbox, seen: Collection[HostId]
) -> Sequence[HostLoad]:
    """The next few hosts with room after a random id, round the end."""
    query = (
        select(*codec.HOST, _h.used)
        .where(hosts.ROOMY, *hosts.meeting(new.wish, without=seen))
        .order_by(_h.id)
    )
    start = ids.new_host_id()  # random by itself
    rows = list(connection.execute(query.where(_h.id >= start).limit(placement.CANDIDATES)))
    missing = placement.CANDIDATES - len(rows)
    if missing:
        rows += connection.execute(query.where(_h.id < start).limit(missing))
    return hosts.loads(connection, rows)


def _free_port(
    connection: Connection, host_id: HostId, port_range: tuple[int, int]
) -> tuple[HostLoad, int] | None:
    """A port on a host that has a slot too; its row is locked until the transaction ends."""
    # What ranked the hosts may be old by now: lock this one, then count again.
    row = connection.execute(_HOST, {"the_host": host_id}).first()
    if row is None:
        return None  # it was removed meanwhile
    held = {taken.port: taken.state for taken in connection.execute(_HELD, {"the_host": host_id})}
    starting = sum(state == SandboxState.CREATING for state in held.values())
    load = HostLoad(host=codec.host_of(row), used=row.used, starting=starting)
    port = next_port(row.port_cursor, held, port_range) if placement.placeable(load) else None
    return None if port is None else (load, port)


def _fitted(new: NewSandbox, load: HostLoad) -> NewSandbox:
    """A session's sandbox is made of what the host has: an older image rather than none."""
    return replace(new, image=load.host.image) if load.host.image else new


def _insert(
    connection: Connection, new: NewSandbox, load: HostLoad, port: int, now: datetime
) -> Sandbox:
    host_id = load.host.id
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
        generation=load.host.generation,
        started_with=load.starting + 1,
    )
    connection.execute(sa.insert(schema.sandboxes), codec.sandbox_values(sandbox))
    connection.execute(_TAKE.values(used=_h.used + 1, port_cursor=port), {"the_host": host_id})
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
