"""Hosts of the pool: ports.Hosts on SQL. The store creates it. placements.py and sandboxes.py use
`loads`, `conditions_for` and `ROOMY`.

A write that depends on the stored host (`change`, `lose`, `remove`) locks its row first. So does
every transaction that writes to a host and to its sandboxes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam, func, select, text
from sqlalchemy.engine import Connection

from orchestrator.adapters.sql_store import codec, schema
from orchestrator.adapters.sql_store.database import Database, insert
from orchestrator.adapters.sql_store.prepared import Lookup, Write, look_up
from orchestrator.domain import errors
from orchestrator.domain.ids import HostId
from orchestrator.domain.pool.host import (
    STARTS_AT_ONCE,
    STARTS_IN_LINE,
    Drain,
    Host,
    HostKind,
    HostLoad,
    HostState,
    Wish,
)
from orchestrator.domain.pool.refill import PoolTotals
from orchestrator.domain.pool.sandbox import Sandbox, SandboxState

_h = schema.hosts.c
_b = schema.sandboxes.c
_l = schema.host_labels.c
_LIVE = text(f"sandboxes.{schema.SANDBOX_LIVE}")
_OPEN = text(schema.HOST_OPEN)
_STAYS = text(schema.HOST_STAYS)
ROOMY = text(schema.HOST_ROOMY)
# Hosts that a claim may use. A host with a shortage takes no new sandboxes, but its warm ones work.
CLAIM_HOST = (
    _h.state == HostState.UP.value,
    ~_h.cordoned,
    _h.drain == Drain.NONE.value,
)

_GET = Lookup(select(*codec.HOST).where(_h.id == bindparam("the_host")))
_ALL = select(*codec.HOST).order_by(_h.created_at, _h.id)
_SANDBOX_COUNTS = select(
    _b.host_id,
    func.count(sa.case((_b.state == SandboxState.CREATING.value, 1))),
    func.count(
        sa.case(
            (
                sa.and_(
                    _b.session_id.is_(None),
                    _b.state.in_([SandboxState.CREATING.value, SandboxState.WARM.value]),
                ),
                1,
            )
        )
    ),
).where(_LIVE)
_LOCKED = Lookup(_GET.query.with_for_update(key_share=True))
_UPDATE = sa.update(schema.hosts).where(_h.id == bindparam("the_host"))
_SAVE = Write(_UPDATE)
_LIVE_SANDBOXES_LOCKED = (
    select(*codec.SANDBOX)
    .where(_b.host_id == bindparam("the_host"), _LIVE)
    .order_by(_b.id)
    .with_for_update()
)
_TOTALS = select(func.count(), func.sum(_h.slots), func.sum(_h.slots - _h.used)).where(_OPEN)
_STARTING = (
    select(func.count())
    .where(_b.host_id == _h.id, text(f"sandboxes.{schema.SANDBOX_CREATING}"))
    .correlate(schema.hosts)
    .scalar_subquery()
)
# What sessions can get of a host now: its free slots, as far as they can get in line for a start.
_PLACES = STARTS_AT_ONCE + STARTS_IN_LINE - _STARTING
_ROOM_OF_HOST = sa.case((_h.slots - _h.used > _PLACES, _PLACES), else_=_h.slots - _h.used)
# Ordered by id, so that PostgreSQL uses the index. It estimates that a third of all hosts have room
# and would otherwise scan the table until it has enough: in a full pool, the whole table.
_ROOM = select(_ROOM_OF_HOST).where(ROOMY, _PLACES > 0).order_by(_h.id).limit(bindparam("count"))
_KINDS = select(
    _h.id,
    _h.region,
    _h.labels,
    sa.and_(*CLAIM_HOST).label("is_usable"),
    _h.slots,
    sa.case((ROOMY, _h.slots - _h.used), else_=0),
)
_WARM_BY_HOST = (
    select(_b.host_id, func.count())
    .where(text("sandboxes.state = 'warm' AND sandboxes.routed"))
    .group_by(_b.host_id)
)


def loads(connection: Connection, rows: Sequence[Sequence[Any]]) -> Sequence[HostLoad]:
    """The hosts with the load of their live sandboxes. `rows`: the HOST columns, then `used`."""
    hosts = [codec.host_of(row) for row in rows]
    query = _SANDBOX_COUNTS.where(_b.host_id.in_([host.id for host in hosts])).group_by(_b.host_id)
    counts = {row[0]: row for row in connection.execute(query)}
    return [
        HostLoad(
            host=host,
            used=row[-1],
            starting=counts[host.id][1] if host.id in counts else 0,
            warm=counts[host.id][2] if host.id in counts else 0,
        )
        for host, row in zip(hosts, rows, strict=True)
    ]


def kinds(connection: Connection) -> Sequence[HostKind]:
    """ports.Hosts.kinds."""
    warm: dict[HostId, int] = dict(connection.execute(_WARM_BY_HOST).all())
    groups: dict[tuple[str, str, bool], list[Sequence[Any]]] = {}
    for row in connection.execute(_KINDS):
        groups.setdefault((row.region, row.labels, bool(row.is_usable)), []).append(row)
    return [
        HostKind(
            region=region,
            labels=json.loads(labels) if labels else {},
            accepts_claims=accepts_claims,
            slots=sum(slots for *_, slots, _ in rows),
            free=sum(free for *_, free in rows),
            warm=sum(warm.get(host_id, 0) for host_id, *_ in rows),
            host_ids=[host_id for host_id, *_ in rows],
        )
        for (region, labels, accepts_claims), rows in groups.items()
    ]


def conditions_for(
    wish: Wish, *, without: Collection[HostId] = ()
) -> Sequence[sa.ColumnElement[bool]]:
    """SQL conditions for hosts that meet the wish and aren't among `without`."""
    conditions: list[sa.ColumnElement[bool]] = []
    if wish.region:
        conditions.append(_h.region == wish.region)
    for key, value in wish.labels.items():
        labelled = select(_l.host_id).where(_l.key == key, _l.value == value)
        conditions.append(_h.id.in_(labelled))
    if without:
        conditions.append(_h.id.not_in(list(without)))
    return conditions


class SqlHosts:
    """ports.Hosts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, host: Host) -> None:
        values = codec.host_values(host)
        try:
            with self._database.write() as connection:
                # `values` has neither `port_cursor` nor `used`: both keep their stored values.
                statement = insert(connection, schema.hosts).on_conflict_do_update(
                    index_elements=["id"],
                    set_={name: value for name, value in values.items() if name != "id"},
                )
                connection.execute(statement, values)
                _write_labels(connection, host.id, host.labels)
        except errors.Conflict as error:
            raise self._conflict_of(host) from error

    def change(self, host_id: HostId, change: Callable[[Host], Host]) -> Host:
        with self._database.write() as connection:
            before = _read_locked(connection, host_id)
            after = change(before)
            if after != before:
                _write(connection, before, after)
            return after

    def lose(self, host_id: HostId, now: datetime, reason: str) -> Sequence[Sandbox]:
        with self._database.write() as connection:
            before = _read_locked(connection, host_id)
            after = before.transition(HostState.LOST, now, reason)
            _write(connection, before, replace(after, generation=before.generation + 1))
            rows = connection.execute(_LIVE_SANDBOXES_LOCKED, {"the_host": host_id}).all()
            sandboxes = [codec.sandbox_of(row) for row in rows]
            return [
                _break(connection, sandbox, now, f"its host {before.name} was lost")
                if sandbox.state not in {SandboxState.BROKEN, SandboxState.STOPPING}
                else sandbox
                for sandbox in sandboxes
            ]

    def remove(self, host_id: HostId) -> None:
        with self._database.write() as connection:
            host = _read_locked(connection, host_id)
            count = select(func.count()).select_from(schema.sandboxes)
            live = connection.execute(count.where(_b.host_id == host_id, _LIVE)).scalar_one()
            if live:
                raise errors.Conflict(
                    f"{host.name} still has {live} sandboxes: drain it first, or use --force",
                    code="host_in_use",
                    sandboxes=live,
                )
            connection.execute(sa.delete(schema.sandboxes).where(_b.host_id == host_id))
            connection.execute(sa.delete(schema.hosts).where(_h.id == host_id))

    def seen(self, host_ids: Collection[HostId], now: datetime) -> None:
        # In the order of their ids, as all who lock several hosts.
        rows = [{"the_host": host_id} for host_id in sorted(host_ids)]
        if rows:
            with self._database.write() as connection:
                connection.execute(_UPDATE.values(seen_at=now), rows)

    def get(self, host_id: HostId) -> Host:
        row = self._database.first(_GET, the_host=host_id)
        if row is None:
            raise errors.NotFound(f"there is no host {host_id}")
        return codec.host_of(row)

    def by_name(self, name: str) -> Host | None:
        return self._first(select(*codec.HOST).where(_h.name == name))

    def list(self) -> Sequence[Host]:
        with self._database.read() as connection:
            return [codec.host_of(row) for row in connection.execute(_ALL)]

    def loads(self) -> Sequence[HostLoad]:
        query = select(*codec.HOST, _h.used).order_by(_h.created_at, _h.id)
        with self._database.read() as connection:
            return loads(connection, connection.execute(query).all())

    def totals(self) -> PoolTotals:
        with self._database.read() as connection:
            hosts, slots, free = connection.execute(_TOTALS).one()
        return PoolTotals(hosts=hosts, slots=slots or 0, free_slots=max(0, free or 0))

    def free_slots(self, limit: int) -> int:
        with self._database.read() as connection:
            # Each of these hosts has at least one free slot: `enough` hosts are enough to read.
            free = sum(connection.execute(_ROOM, {"count": limit}).scalars())
        return min(limit, int(free))

    def kinds(self) -> Sequence[HostKind]:
        with self._database.read() as connection:
            return kinds(connection)

    def any_accepts(
        self, wish: Wish, *, without: Collection[HostId] = (), with_room: bool = False
    ) -> bool:
        usable = ROOMY if with_room else _OPEN
        query = select(_h.id).where(usable, *conditions_for(wish, without=without)).limit(1)
        with self._database.read() as connection:
            return connection.execute(query).first() is not None

    def any_meets(self, wish: Wish) -> bool:
        with self._database.read() as connection:
            query = select(_h.id).where(*conditions_for(wish)).limit(1)
            return connection.execute(query).first() is not None

    def _first(self, query: sa.Select[tuple[object, ...]]) -> Host | None:
        with self._database.read() as connection:
            row = connection.execute(query).first()
        return None if row is None else codec.host_of(row)

    def _conflict_of(self, host: Host) -> errors.Conflict:
        """The error that tells whether the machine, its publish address or the name is in use."""
        if host.machine_id:
            query = select(*codec.HOST).where(_h.machine_id == host.machine_id, _h.id != host.id)
            twin = self._first(query)
            if twin is not None:
                return errors.Conflict(
                    f"that machine is in the pool already, as {twin.name}: one machine is one host."
                    " (A cloned disk? Then give the clone a machine id of its own.)",
                    code="machine_known",
                    host=twin.name,
                )
        if host.drain is not Drain.LEAVE:
            query = select(*codec.HOST).where(
                _h.publish_address == host.publish_address, _h.id != host.id, _STAYS
            )
            neighbour = self._first(query)
            if neighbour is not None:
                return errors.Conflict(
                    f"apps of {neighbour.name} are published on {host.publish_address} already:"
                    " each host needs an address of its own",
                    code="publish_address_taken",
                    host=neighbour.name,
                )
        return errors.Conflict(
            f"there is a host named {host.name} already: choose another name", code="host_exists"
        )


def _read_locked(connection: Connection, host_id: HostId) -> Host:
    """The host. Its row stays locked until the transaction ends. Raises NotFound."""
    row = look_up(connection, _LOCKED, the_host=host_id)
    if row is None:
        raise errors.NotFound(f"there is no host {host_id}")
    return codec.host_of(row)


def _write(connection: Connection, before: Host, after: Host) -> None:
    values = codec.host_values(after)
    del values["id"]
    _SAVE.run(connection, {"the_host": after.id, **values})
    if after.labels != before.labels:
        _write_labels(connection, after.id, after.labels)


def _write_labels(connection: Connection, host_id: HostId, labels: Mapping[str, str]) -> None:
    connection.execute(sa.delete(schema.host_labels).where(_l.host_id == host_id))
    rows = [{"host_id": host_id, "key": key, "value": value} for key, value in labels.items()]
    if rows:
        connection.execute(sa.insert(schema.host_labels), rows)


def _break(connection: Connection, sandbox: Sandbox, now: datetime, reason: str) -> Sandbox:
    """Write the sandbox as BROKEN. The caller has locked its row."""
    broken = sandbox.transition(SandboxState.BROKEN, now, reason)
    connection.execute(
        sa.update(schema.sandboxes)
        .where(_b.id == sandbox.id)
        .values(state=broken.state.value, state_since=now, reason=broken.reason)
    )
    return broken
