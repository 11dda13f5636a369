"""Placements: reserve a slot and a port for a new sandbox. sandboxes.py calls `place`, and
`change_port` if another program holds the port.

A placement reads a few hosts with room and their sandboxes, however large the pool is. An index
finds the hosts, starting at a random id. Each host is tried in its own transaction, so that nobody
holds the lock of one host while waiting for another's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import bindparam, select, text
from sqlalchemy.engine import Connection

from orchestrator.adapters.sql_store import codec, schema, sessions
from orchestrator.adapters.sql_store.database import Database
from orchestrator.adapters.sql_store.pool import hosts
from orchestrator.domain import errors, ids
from orchestrator.domain.ids import HostId
from orchestrator.domain.pool import placement
from orchestrator.domain.pool.host import Host, HostLoad
from orchestrator.domain.pool.sandbox import Sandbox, SandboxState
from orchestrator.domain.sessions.session import Session
from orchestrator.ports import NewSandbox

_ROUNDS = 3  # sets of candidates to try: all hosts of one set may be busy with other starts

_h = schema.hosts.c
_b = schema.sandboxes.c

_HOST_LOCKED = (
    select(*codec.HOST, _h.used, _h.port_cursor)
    .where(_h.id == bindparam("the_host"))
    .with_for_update(key_share=True)
)
_HELD_PORTS = select(_b.port, _b.state).where(
    _b.host_id == bindparam("the_host"), text(schema.SANDBOX_LIVE)
)
_UPDATE_HOST = sa.update(schema.hosts).where(_h.id == bindparam("the_host"))
# Its container must not exist yet, and its route is published anew.
_CHANGE_PORT = (
    sa.update(schema.sandboxes)
    .where(
        _b.id == bindparam("the_sandbox"),
        _b.state == SandboxState.CREATING.value,
        _b.container_id.is_(None),
    )
    .values(routed=False)
    .returning(*codec.SANDBOX)
)


def place(
    database: Database,
    new: NewSandbox,
    port_range: tuple[int, int],
    now: datetime,
    session: Session | None,
) -> Sandbox:
    """Insert `new` on the best of a few hosts. Save `session` in the same transaction if given.
    Raises NoCapacity, StaleWrite."""
    for_warm = new.session_id is None
    for host_id in _candidates(database, new):
        with database.write() as connection:
            room = _find_room(connection, host_id, port_range, now, for_warm=for_warm)
            if room is None:
                continue
            load, port = room
            if session is not None:
                # The session before the sandbox that refers to it: see sandboxes.py.
                sessions.write(connection, session)
            return _insert(connection, _with_image_of(load, new), load, port, now)
    raise errors.NoCapacity("no host has a free slot now: the session waits for one")


def change_port(
    database: Database, sandbox: Sandbox, port_range: tuple[int, int], now: datetime
) -> Sandbox | None:
    """ports.Sandboxes.change_port."""
    with database.write() as connection:
        row = connection.execute(_HOST_LOCKED, {"the_host": sandbox.host_id}).first()
        if row is None:
            raise errors.StaleWrite(f"the host of sandbox {sandbox.id} was removed")
        host = codec.host_of(row).set_port_aside(sandbox.port, now)
        port = next_port(row.port_cursor, _unusable_ports(connection, host, now), port_range)
        if port is None:
            host = replace(host, shortage=host.port_shortage(now))
        values = {name: codec.host_values(host)[name] for name in ("taken_ports", "shortage")}
        cursor = row.port_cursor if port is None else port
        connection.execute(_UPDATE_HOST.values(port_cursor=cursor, **values), {"the_host": host.id})
        if port is None:
            return None
        changed = connection.execute(
            _CHANGE_PORT.values(port=port), {"the_sandbox": sandbox.id}
        ).first()
        if changed is None:
            raise errors.StaleWrite(f"sandbox {sandbox.id} doesn't wait for a start any more")
        return codec.sandbox_of(changed)


def has_free_port(
    database: Database, host: Host, port_range: tuple[int, int], now: datetime
) -> bool:
    """ports.Sandboxes.has_free_port."""
    with database.read() as connection:
        return next_port(0, _unusable_ports(connection, host, now), port_range) is not None


def _candidates(database: Database, new: NewSandbox) -> Iterator[HostId]:
    """Hosts to try, the best first. No host is repeated."""
    tried: set[HostId] = set(new.avoid)
    for _ in range(_ROUNDS):
        with database.read() as connection:
            loads = _sample(connection, new, tried)
        yield from (
            load.host.id
            for load in placement.rank(loads, image=new.image, for_warm=new.session_id is None)
        )
        tried |= {load.host.id for load in loads}
        if len(loads) < placement.CANDIDATES:
            return


def _sample(
    connection: Connection, new: NewSandbox, tried: Collection[HostId]
) -> Sequence[HostLoad]:
    """A few hosts with room that aren't in `tried`: the next ones after a random id, then from the
    first id on."""
    query = (
        select(*codec.HOST, _h.used)
        .where(hosts.ROOMY, *hosts.conditions_for(new.wish, without=tried))
        .order_by(_h.id)
    )
    start = ids.new_host_id()  # host ids are random
    rows = list(connection.execute(query.where(_h.id >= start).limit(placement.CANDIDATES)))
    missing = placement.CANDIDATES - len(rows)
    if missing:
        rows += connection.execute(query.where(_h.id < start).limit(missing))
    return hosts.loads(connection, rows)


def _find_room(
    connection: Connection,
    host_id: HostId,
    port_range: tuple[int, int],
    now: datetime,
    *,
    for_warm: bool,
) -> tuple[HostLoad, int] | None:
    """The host's load and a free port of it; None if it has no slot or no port, or is starting too
    many. Locks the host's row until the transaction ends."""
    # The load that ranked the hosts may be outdated: lock this host, then count again.
    row = connection.execute(_HOST_LOCKED, {"the_host": host_id}).first()
    if row is None:
        return None  # the host was removed meanwhile
    host = codec.host_of(row)
    states = _states_by_port(connection, host_id)
    starting = sum(state == SandboxState.CREATING for state in states.values())
    load = HostLoad(host=host, used=row.used, starting=starting)
    if not placement.can_place(load, for_warm=for_warm):
        return None
    port = next_port(row.port_cursor, {*states, *host.ports_set_aside(now)}, port_range)
    return None if port is None else (load, port)


def _unusable_ports(connection: Connection, host: Host, now: datetime) -> Collection[int]:
    """The ports that sandboxes of the host hold, or other programs."""
    return {*_states_by_port(connection, host.id), *host.ports_set_aside(now)}


def _states_by_port(connection: Connection, host_id: HostId) -> Mapping[int, str]:
    """The states of the host's sandboxes that aren't GONE."""
    return dict(connection.execute(_HELD_PORTS, {"the_host": host_id}).all())


def _with_image_of(load: HostLoad, new: NewSandbox) -> NewSandbox:
    """`new` with the image that its host has. An older image is better than no sandbox."""
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
        # On a host that nobody has tried, the limits loop raises it, and so finds out.
        raised=new.raised and load.host.changes_cpus is True,
    )
    connection.execute(sa.insert(schema.sandboxes), codec.sandbox_values(sandbox))
    connection.execute(
        _UPDATE_HOST.values(used=_h.used + 1, port_cursor=port), {"the_host": host_id}
    )
    return sandbox


def next_port(cursor: int, held: Collection[int], port_range: tuple[int, int]) -> int | None:
    """The first free port after `cursor`, wrapping at the end of the range. None if all are held.

    Round-robin keeps a port idle for as long as possible. A browser or a proxy connection may still
    point at the port's last sandbox; it should find nothing there, not somebody else's app.
    """
    low, high = port_range
    previous = cursor if low <= cursor <= high else high
    size = high - low + 1
    ports = (low + (previous - low + step) % size for step in range(1, size + 1))
    return next((port for port in ports if port not in held), None)
