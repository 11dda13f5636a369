"""Changes of running apps: ports.Changes on SQL. The store creates it."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy import bindparam, select

from orchestrator.adapters.sql_store import bundles, codec, schema, sessions
from orchestrator.adapters.sql_store.database import Database
from orchestrator.domain import errors
from orchestrator.domain.ids import SessionId
from orchestrator.domain.sessions.bundles import BundleRecord
from orchestrator.domain.sessions.changes import Change
from orchestrator.domain.sessions.session import Session

_c = schema.changes.c
_OF_SESSION = select(*codec.CHANGE).where(_c.session_id == bindparam("session_id"))
_LIST = _OF_SESSION.order_by(_c.number)
_GET = _OF_SESSION.where(_c.number == bindparam("number"))
_BY_KEY = _OF_SESSION.where(_c.idempotency_key == bindparam("key"))
_CONCLUDE = sa.update(schema.changes).where(
    _c.session_id == bindparam("of_session"), _c.number == bindparam("of_number")
)


class SqlChanges:
    """ports.Changes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, change: Change, session: Session, idempotency_key: str | None) -> Session:
        values = {**codec.change_values(change), "idempotency_key": idempotency_key}
        with self._database.write() as connection:
            # The session first: a concurrent add with the same number then fails as StaleWrite.
            saved = sessions.write(connection, session)
            connection.execute(sa.insert(schema.changes), values)
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

    def list(self, session_id: SessionId) -> Sequence[Change]:
        with self._database.read() as connection:
            rows = connection.execute(_LIST, {"session_id": session_id})
            return [codec.change_of(row) for row in rows]

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
