"""Generated bundles by their request: ports.Generations on SQL. The store creates it."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import select

from orchestrator.adapters.sql_store import schema
from orchestrator.adapters.sql_store.database import Database, insert
from orchestrator.domain.ids import SessionId, Sha256
from orchestrator.domain.sessions.generations import FRESH_FOR, Generation

_g = schema.generations.c


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
