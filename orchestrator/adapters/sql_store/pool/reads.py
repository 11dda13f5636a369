"""What passes over large pools read: ports.PoolReads on SQL. The store creates it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import bindparam, select, text

from orchestrator.adapters.sql_store import codec, schema
from orchestrator.adapters.sql_store.database import Database
from orchestrator.domain.ids import HostId, SandboxId
from orchestrator.domain.pool.host import Drain, Host, HostState
from orchestrator.domain.pool.sandbox import SandboxState

_h = schema.hosts.c
_b = schema.sandboxes.c
_LIVE = text(f"sandboxes.{schema.SANDBOX_LIVE}")
_IDS = select(_h.id).order_by(_h.created_at, _h.id)
_RESTLESS = select(_h.id).where(
    sa.or_(
        _h.state != HostState.UP.value,
        _h.drain != Drain.NONE.value,
        _h.image != bindparam("today"),
    )
)
_OF_HOSTS: sa.BindParameter[Sequence[str]] = bindparam("host_ids", expanding=True)
_HOSTS = select(*codec.HOST).where(_h.id.in_(_OF_HOSTS))
_LIVING = select(_b.id, _b.host_id).where(_LIVE)
_LATE = select(_b.id, _b.host_id).where(
    _LIVE,
    sa.or_(
        sa.and_(
            _b.state.in_([SandboxState.WARM.value, SandboxState.CLAIMED.value]),
            _b.agent_seen_at < bindparam("before"),
        ),
        sa.and_(_b.state == SandboxState.CREATING.value, _b.created_at < bindparam("before")),
    ),
)

_ASSIGNED = (
    select(_b.id, schema.sessions.c.revision)
    .join(schema.sessions, schema.sessions.c.id == _b.session_id)
    .where(_LIVE, _b.state == SandboxState.CLAIMED.value)
)


class SqlPoolReads:
    """ports.PoolReads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def host_ids(self) -> Sequence[HostId]:
        with self._database.read() as connection:
            return connection.execute(_IDS).scalars().all()

    def restless_hosts(self, image: str) -> Collection[HostId]:
        with self._database.read() as connection:
            return connection.execute(_RESTLESS, {"today": image}).scalars().all()

    def hosts(self, host_ids: Collection[HostId]) -> Sequence[Host]:
        if not host_ids:
            return ()
        with self._database.read() as connection:
            rows = connection.execute(_HOSTS, {"host_ids": list(host_ids)})
            return [codec.host_of(row) for row in rows]

    def living(self, host_ids: Collection[HostId] | None = None) -> Mapping[SandboxId, HostId]:
        if host_ids is not None and not host_ids:
            return {}
        query = _LIVING if host_ids is None else _LIVING.where(_b.host_id.in_(_OF_HOSTS))
        parameters = None if host_ids is None else {"host_ids": list(host_ids)}
        with self._database.read() as connection:
            return dict(connection.execute(query, parameters).all())

    def late_agents(self, before: datetime) -> Mapping[SandboxId, HostId]:
        with self._database.read() as connection:
            return dict(connection.execute(_LATE, {"before": before}).all())

    def assigned(self) -> Mapping[SandboxId, int]:
        with self._database.read() as connection:
            return dict(connection.execute(_ASSIGNED).all())
