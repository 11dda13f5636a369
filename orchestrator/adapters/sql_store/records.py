"""Bundle records, logs and generations: ports.BundleRecords, Logs and Generations on SQL.

The store creates them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import bindparam, select, text

from orchestrator.adapters.sql_store import codec, schema
from orchestrator.adapters.sql_store.database import Database, insert
from orchestrator.domain import errors
from orchestrator.domain.ids import SessionId, Sha256
from orchestrator.domain.sessions.bundles import BundleRecord
from orchestrator.domain.sessions.generations import FRESH_FOR, Generation
from orchestrator.ports import LogLine

_BATCH = 500  # the most records that one call of `take_expired` deletes

_u = schema.bundles.c
_l = schema.logs.c
_g = schema.generations.c

# A live session may start from the bundle of another session: then the bundle's bytes stay.
_EXPIRED = (
    select(_u.session_id, _u.version, _u.sha256)
    .where(
        text("delete_after IS NOT NULL"),
        _u.delete_after <= bindparam("now"),
        ~sa.exists().where(
            schema.sessions.c.bundle == _u.sha256, text(f"sessions.{schema.SESSION_LIVE}")
        ),
    )
    .order_by(_u.delete_after)
    .limit(_BATCH)
    .with_for_update(skip_locked=True)
)
_DELETE_BUNDLE = sa.delete(schema.bundles).where(
    _u.session_id == bindparam("of_session"), _u.version == bindparam("of_version")
)
_TAIL = (
    select(_l.at, _l.text)
    .where(_l.session_id == bindparam("session_id"))
    .order_by(_l.id.desc())
    .limit(bindparam("count"))
)
_NEWEST_TO_DROP = (
    select(_l.id)
    .where(_l.session_id == bindparam("of_session"))
    .order_by(_l.id.desc())
    .limit(1)
    .offset(bindparam("keep"))
    .scalar_subquery()
)
_CAP = sa.delete(schema.logs).where(
    _l.session_id == bindparam("of_session"), _l.id <= _NEWEST_TO_DROP
)


class SqlBundleRecords:
    """ports.BundleRecords."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, record: BundleRecord) -> None:
        """As the port says. Another digest under the same version raises Conflict."""
        with self._database.write() as connection:
            statement = (
                insert(connection, schema.bundles)
                .on_conflict_do_nothing(index_elements=["session_id", "version"])
                .returning(_u.version)
            )
            if connection.execute(statement, codec.bundle_values(record)).first() is not None:
                return
            stored_sha256 = connection.execute(
                select(_u.sha256).where(
                    _u.session_id == record.session_id, _u.version == record.version
                )
            ).scalar_one()
            if stored_sha256 != record.sha256:
                raise errors.Conflict(
                    f"version {record.version} of session {record.session_id} exists already, with"
                    " another digest",
                    code="bundle_exists",
                )

    def update(self, record: BundleRecord) -> None:
        values = {"healthy": record.healthy, "provider": record.provider, "summary": record.summary}
        with self._database.write() as connection:
            connection.execute(
                sa.update(schema.bundles)
                .where(_u.session_id == record.session_id, _u.version == record.version)
                .values(values)
            )

    def list(self, session_id: SessionId) -> Sequence[BundleRecord]:
        """Oldest version first."""
        query = select(*codec.BUNDLE).where(_u.session_id == session_id).order_by(_u.version)
        with self._database.read() as connection:
            return [codec.bundle_of(row) for row in connection.execute(query)]

    def retire(self, session_id: SessionId, delete_after: datetime) -> None:
        with self._database.write() as connection:
            connection.execute(
                sa.update(schema.bundles)
                .where(_u.session_id == session_id, _u.delete_after.is_(None))
                .values(delete_after=delete_after)
            )

    def take_expired(self, now: datetime) -> Sequence[Sha256]:
        """As the port says, at most a batch per call. A caller that dies before it deletes the
        bytes then leaves only a few behind."""
        with self._database.write() as connection:
            rows = connection.execute(_EXPIRED, {"now": now}).all()
            if not rows:
                return []
            connection.execute(
                _DELETE_BUNDLE,
                [{"of_session": row.session_id, "of_version": row.version} for row in rows],
            )
            digests = {row.sha256 for row in rows}
            in_use = connection.execute(select(_u.sha256).where(_u.sha256.in_(sorted(digests))))
            return sorted(digests.difference(in_use.scalars()))


class SqlLogs:
    """ports.Logs."""

    def __init__(self, database: Database, keep_lines: int) -> None:
        self._database = database
        self._keep_lines = keep_lines

    def append(self, session_id: SessionId, lines: Sequence[str], now: datetime) -> None:
        """As the port says. Raises NotFound for an unknown session."""
        if not lines:
            return
        rows = [
            {"session_id": session_id, "at": now, "text": line}
            for line in lines[-self._keep_lines :]
        ]
        with self._database.write() as connection:
            connection.execute(sa.insert(schema.logs), rows)
            connection.execute(_CAP, {"of_session": session_id, "keep": self._keep_lines})

    def tail(self, session_id: SessionId, limit: int) -> Sequence[LogLine]:
        with self._database.read() as connection:
            rows = connection.execute(_TAIL, {"session_id": session_id, "count": limit}).all()
        return [LogLine(at=at, text=line) for at, line in reversed(rows)]


class SqlGenerations:
    """ports.Generations."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, generation: Generation) -> None:
        values = {
            "key": generation.key,
            "bundle": generation.bundle,
            "session_id": generation.session_id,
            "summary": generation.summary,
            "created_at": generation.created_at,
        }
        with self._database.write() as connection:
            connection.execute(
                insert(connection, schema.generations).on_conflict_do_update(
                    index_elements=["key"],
                    set_={name: value for name, value in values.items() if name != "key"},
                    where=_g.created_at <= generation.created_at,
                ),
                values,
            )

    def find(self, key: str, now: datetime) -> Generation | None:
        query = select(_g.bundle, _g.session_id, _g.summary, _g.created_at).where(
            _g.key == key, _g.created_at > now - FRESH_FOR
        )
        with self._database.read() as connection:
            row = connection.execute(query).first()
        if row is None:
            return None
        bundle, session_id, summary, created_at = row
        return Generation(
            key=key,
            bundle=Sha256(bundle),
            session_id=SessionId(session_id),
            summary=summary,
            created_at=created_at,
        )

    def prune(self, now: datetime) -> int:
        with self._database.write() as connection:
            stale = _g.created_at <= now - FRESH_FOR
            return connection.execute(sa.delete(schema.generations).where(stale)).rowcount
