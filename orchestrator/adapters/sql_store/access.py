"""API keys, audit and leases: ports.Keys, Audit and Leases on SQL. The store creates them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam, select, text

from orchestrator.adapters.sql_store import schema
from orchestrator.adapters.sql_store.database import Database, insert
from orchestrator.adapters.sql_store.prepared import Lookup
from orchestrator.domain import errors
from orchestrator.domain.ids import KeyId
from orchestrator.domain.people.access import ApiKey, Role
from orchestrator.domain.sessions.session import Tier
from orchestrator.ports import RELEASED, AuditEntry, LeaseRecord

_BATCH = 1000  # rows that one call of `prune` deletes

_k = schema.api_keys.c
_API_KEY = tuple(_k)
_a = schema.audit.c
_e = schema.leases.c

# Runs at every request that carries a key.
_BY_HASH = Lookup(
    select(*_API_KEY).where(_k.key_hash == bindparam("key_hash"), text("revoked_at IS NULL"))
)


class SqlKeys:
    """ports.Keys."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, key: ApiKey) -> None:
        try:
            with self._database.write() as connection:
                connection.execute(sa.insert(schema.api_keys), _key_values(key))
        except errors.Conflict as error:
            raise errors.Conflict(
                f"there is already a key named {key.name}: revoke it or choose another name",
                code="key_exists",
            ) from error

    def by_hash(self, key_hash: str) -> ApiKey | None:
        row = self._database.first(_BY_HASH, key_hash=key_hash)
        return None if row is None else _key_of(row)

    def list(self) -> Sequence[ApiKey]:
        """Oldest first, including revoked keys."""
        query = select(*_API_KEY).order_by(_k.created_at, _k.id)
        with self._database.read() as connection:
            return [_key_of(row) for row in connection.execute(query)]

    def revoke(self, key_id: KeyId, now: datetime) -> None:
        """As the port says. A key that is revoked already keeps its time of revocation."""
        with self._database.write() as connection:
            statement = (
                sa.update(schema.api_keys)
                .where(_k.id == key_id)
                .values(revoked_at=sa.func.coalesce(_k.revoked_at, now))
            )
            if connection.execute(statement).rowcount == 0:
                raise errors.NotFound(f"there is no key {key_id}")


def _key_of(row: Sequence[Any]) -> ApiKey:
    """The ApiKey in a row of the _API_KEY columns."""
    fields = {column.name: value for column, value in zip(_API_KEY, row, strict=True)}
    return ApiKey(**{**fields, "tier": Tier(fields["tier"]), "role": Role(fields["role"])})


def _key_values(key: ApiKey) -> dict[str, Any]:
    return {
        **{column.name: getattr(key, column.name) for column in _API_KEY},
        "tier": key.tier.value,
        "role": key.role.value,
    }


class SqlAudit:
    """ports.Audit."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, entry: AuditEntry) -> None:
        values = {
            "at": entry.at,
            "actor": entry.actor,
            "action": entry.action,
            "subject": entry.subject,
            "detail": entry.detail,
        }
        with self._database.write() as connection:
            connection.execute(sa.insert(schema.audit), values)

    def list(self, *, before: int | None = None, limit: int = 100) -> Sequence[AuditEntry]:
        query = select(_a.id, _a.at, _a.actor, _a.action, _a.subject, _a.detail)
        if before is not None:
            query = query.where(_a.id < before)
        with self._database.read() as connection:
            return [
                AuditEntry(
                    number=number, at=at, actor=actor, action=action, subject=subject, detail=detail
                )
                for number, at, actor, action, subject, detail in connection.execute(
                    query.order_by(_a.id.desc()).limit(limit)
                )
            ]

    def prune(self, before: datetime) -> int:
        old = select(_a.id).where(_a.at < before).order_by(_a.at).limit(_BATCH)
        with self._database.write() as connection:
            return connection.execute(sa.delete(schema.audit).where(_a.id.in_(old))).rowcount


class SqlLeases:
    """ports.Leases."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def hold(self, name: str, holder: str, until: datetime, now: datetime) -> int | None:
        with self._database.write() as connection:
            # One statement: of two concurrent calls the second sees what the first wrote.
            term = sa.case((_e.holder == holder, _e.term), else_=_e.term + 1)
            statement = (
                insert(connection, schema.leases)
                .on_conflict_do_update(
                    index_elements=["name"],
                    set_={"holder": holder, "until": until, "term": term},
                    where=sa.or_(_e.holder == holder, _e.until <= now),
                )
                .returning(_e.term)
            )
            values = {"name": name, "holder": holder, "until": until, "term": 1}
            number: int | None = connection.execute(statement, values).scalar()
            return number

    def release(self, name: str, holder: str) -> None:
        with self._database.write() as connection:
            connection.execute(
                sa.update(schema.leases)
                .where(_e.name == name, _e.holder == holder)
                .values(until=RELEASED)
            )

    def holder(self, name: str, now: datetime) -> str | None:
        query = select(_e.holder).where(_e.name == name, _e.until > now)
        with self._database.read() as connection:
            holder: str | None = connection.execute(query).scalar()
            return holder

    def last(self, name: str) -> LeaseRecord | None:
        query = select(_e.holder, _e.until, _e.term).where(_e.name == name)
        with self._database.read() as connection:
            row = connection.execute(query).first()
        return None if row is None else LeaseRecord(holder=row[0], until=row[1], term=row[2])
