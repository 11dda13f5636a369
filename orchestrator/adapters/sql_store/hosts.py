"""Hosts of the pool: ports.Hosts on SQL. The store hands it out; placements.py reads loads here."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy import func, select, text
from sqlalchemy.engine import Connection

from orchestrator.adapters.sql_store import codec, schema
from orchestrator.adapters.sql_store.database import Database, insert
from orchestrator.domain import errors
from orchestrator.domain.host import Host, HostLoad
from orchestrator.domain.ids import HostId
from orchestrator.domain.sandbox import SandboxState

_h = schema.hosts.c
_b = schema.sandboxes.c

_ALL = select(*codec.HOST).order_by(_h.created_at, _h.id)
_LOADS = (
    select(
        *codec.HOST,
        func.count(_b.id),
        func.count(sa.case((_b.state == SandboxState.CREATING.value, 1))),
    )
    .outerjoin(
        schema.sandboxes,
        sa.and_(_b.host_id == _h.id, text(f"sandboxes.{schema.SANDBOX_LIVE}")),
    )
    .group_by(_h.id)
    .order_by(_h.created_at, _h.id)
)


def loads(connection: Connection) -> Sequence[HostLoad]:
    """Every host with what its live sandboxes take."""
    return [
        HostLoad(host=codec.host_of(row), used=row[-2], starting=row[-1])
        for row in connection.execute(_LOADS)
    ]


class SqlHosts:
    """ports.Hosts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, host: Host) -> None:
        values = codec.host_values(host)
        try:
            with self._database.write() as connection:
                # The port cursor isn't among the values: it goes on where it was.
                statement = insert(connection, schema.hosts).on_conflict_do_update(
                    index_elements=["id"],
                    set_={name: value for name, value in values.items() if name != "id"},
                )
                connection.execute(statement, values)
        except errors.Conflict as error:
            raise errors.Conflict(
                f"there is a host named {host.name} already: choose another name",
                code="host_exists",
            ) from error

    def get(self, host_id: HostId) -> Host:
        found = self._first(select(*codec.HOST).where(_h.id == host_id))
        if found is None:
            raise errors.NotFound(f"there is no host {host_id}")
        return found

    def by_name(self, name: str) -> Host | None:
        return self._first(select(*codec.HOST).where(_h.name == name))

    def list(self) -> Sequence[Host]:
        with self._database.read() as connection:
            return [codec.host_of(row) for row in connection.execute(_ALL)]

    def loads(self) -> Sequence[HostLoad]:
        with self._database.read() as connection:
            return loads(connection)

    def _first(self, query: sa.Select[tuple[object, ...]]) -> Host | None:
        with self._database.read() as connection:
            row = connection.execute(query).first()
        return None if row is None else codec.host_of(row)
