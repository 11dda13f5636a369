"""Logs, generations and changes: ports.Logs, Generations and Changes on SQL.

The store creates them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import bindparam, func, select

from orchestrator.adapters.sql_store import admission, bundles, codec, schema, sessions
from orchestrator.adapters.sql_store.database import Database, insert
from orchestrator.domain import errors
from orchestrator.domain.ids import SessionId, Sha256
from orchestrator.domain.sessions.bundles import BundleRecord
from orchestrator.domain.sessions.changes import KEPT_MAX, Change
from orchestrator.domain.sessions.generations import FRESH_FOR, Generation
from orchestrator.domain.sessions.session import Session
from orchestrator.ports import LOG_MAX_BYTES, LogLine

_l = schema.logs.c
_g = schema.generations.c

_INSERT_LINES = sa.insert(schema.logs)
_TAIL = (
    select(_l.at, _l.text)
    .where(_l.session_id == bindparam("session_id"))
    .order_by(_l.id.desc())
    .limit(bindparam("count"))
)


def _cap(bytes_of_line: sa.Function[int]) -> sa.Delete:
    """Deletes the oldest lines of a log, so that it has `keep` lines and `max_bytes` at most."""
    newest_first = _l.id.desc()
    counted = (
        select(
            _l.id,
            func.row_number().over(order_by=newest_first).label("count"),
            func.sum(bytes_of_line).over(order_by=newest_first).label("size"),
        )
        .where(_l.session_id == bindparam("of_session"))
        .subquery()
    )
    newest_to_drop = (
        select(func.max(counted.c.id))
        .where(sa.or_(counted.c.count > bindparam("keep"), counted.c.size > bindparam("max_bytes")))
        .scalar_subquery()
    )
    return sa.delete(schema.logs).where(
        _l.session_id == bindparam("of_session"), _l.id <= newest_to_drop
    )


_CAP = {
    "sqlite": _cap(func.length(sa.cast(_l.text, sa.LargeBinary))),
    "postgresql": _cap(func.octet_length(_l.text)),
}
_c = schema.changes.c
_OF_SESSION = select(*codec.CHANGE).where(_c.session_id == bindparam("session_id"))
_LATEST = _OF_SESSION.order_by(_c.number.desc())
_GET = _OF_SESSION.where(_c.number == bindparam("number"))
_BY_KEY = _OF_SESSION.where(_c.idempotency_key == bindparam("key"))
_DROP = sa.delete(schema.changes).where(
    _c.session_id == bindparam("of_session"),
    _c.number <= bindparam("last"),
    ~sa.exists().where(
        schema.bundles.c.session_id == bindparam("of_session"),
        schema.bundles.c.change == _c.number,
    ),
)
_CONCLUDE = sa.update(schema.changes).where(
    _c.session_id == bindparam("of_session"), _c.number == bindparam("of_number")
)


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
            connection.execute(_INSERT_LINES, rows)
            kept = {"keep": self._keep_lines, "max_bytes": LOG_MAX_BYTES}
            connection.execute(_CAP[connection.dialect.name], {"of_session": session_id, **kept})

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


class SqlChanges:
    """ports.Changes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(
        self,
        change: Change,
        session: Session,
        idempotency_key: str | None,
        *,
        max_per_minute: int | None = None,
    ) -> Session:
        values = {**codec.change_values(change), "idempotency_key": idempotency_key}
        with self._database.write() as connection:
            if max_per_minute is not None:
                admission.lock_user(connection, session.user_id)
                admission.check_changes(connection, session, change.created_at, max_per_minute)
            # The session first: a concurrent add with the same number then fails as StaleWrite.
            saved = sessions.write(connection, session)
            connection.execute(sa.insert(schema.changes), values)
            last = change.number - KEPT_MAX
            if last > 0:
                connection.execute(_DROP, {"of_session": session.id, "last": last})
            return saved

    def find(self, session_id: SessionId, idempotency_key: str) -> Change | None:
        parameters = {"session_id": session_id, "key": idempotency_key}
        with self._database.read() as connection:
            row = connection.execute(_BY_KEY, parameters).first()
        return None if row is None else codec.change_of(row)

    def get(self, session_id: SessionId, number: int) -> Change:
        parameters = {"session_id": session_id, "number": number}
        with self._database.read() as connection:
            row = connection.execute(_GET, parameters).first()
        if row is None:
            raise errors.NotFound(f"session {session_id} has no change {number}")
        return codec.change_of(row)

    def list(
        self, session_id: SessionId, *, before: int | None = None, limit: int | None = None
    ) -> Sequence[Change]:
        query = _LATEST if before is None else _LATEST.where(_c.number < before)
        with self._database.read() as connection:
            rows = connection.execute(query.limit(limit), {"session_id": session_id}).all()
        return [codec.change_of(row) for row in reversed(rows)]

    def conclude(
        self, change: Change, session: Session, version: BundleRecord | None = None
    ) -> Session:
        values = codec.change_values(change)
        values.update(of_session=values.pop("session_id"), of_number=values.pop("number"))
        with self._database.write() as connection:
            saved = sessions.write(connection, session)
            connection.execute(_CONCLUDE, values)
            if version is not None:
                bundles.update(connection, version)
            return saved
