"""The versions of sessions: ports.BundleRecords on SQL. The store creates it.

Other modules of this package call `write` and `update` within their own transactions.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam, func, select, text
from sqlalchemy.engine import Connection

from orchestrator.adapters.sql_store import codec, schema, sessions
from orchestrator.adapters.sql_store.database import Database, insert
from orchestrator.domain import errors
from orchestrator.domain.ids import SessionId, Sha256, UserId
from orchestrator.domain.sessions.bundles import BundleRecord, StorageLimits, Stored, find_shortage
from orchestrator.domain.sessions.session import Session

_BATCH = 500  # the most records that one call of `prune` deletes

_u = schema.bundles.c
_s = schema.sessions.c

_OF_SESSION = select(*codec.BUNDLE).where(_u.session_id == bindparam("session_id"))
_LIST = _OF_SESSION.order_by(_u.version)
_DIGEST = select(_u.sha256).where(
    _u.session_id == bindparam("session_id"), _u.version == bindparam("version")
)
_UPDATE = sa.update(schema.bundles).where(
    _u.session_id == bindparam("of_session"), _u.version == bindparam("of_version")
)
_DELETE = sa.delete(schema.bundles).where(
    _u.session_id == bindparam("of_session"), _u.version == bindparam("of_version")
)
_RETIRE = sa.update(schema.bundles).where(
    _u.session_id == bindparam("of_session"), _u.delete_after.is_(None)
)
_DRAFTS = (
    select(_u.version)
    .where(_u.session_id == bindparam("session_id"), ~_u.healthy)
    .order_by(_u.version.desc())
)
# A live session may start from the bundle of another session: then its record stays.
_NAMED_BY_LIVE = sa.exists().where(_s.bundle == _u.sha256, text(f"sessions.{schema.SESSION_LIVE}"))
_EXPIRED = (
    select(_u.session_id, _u.version)
    .where(
        text("delete_after IS NOT NULL"),
        _u.delete_after <= bindparam("now"),
        ~_NAMED_BY_LIVE,
    )
    .order_by(_u.delete_after)
    .limit(_BATCH)
    .with_for_update(skip_locked=True)
)
_DIGESTS = (
    select(_u.sha256)
    .distinct()
    .where(_u.sha256 > bindparam("after"))
    .order_by(_u.sha256)
    .limit(bindparam("count"))
)
_COUNT = select(func.count()).where(_u.session_id == bindparam("session_id"))


def write(connection: Connection, record: BundleRecord) -> bool:
    """Insert a record, or update the one of its session and version, within the caller's
    transaction. Returns whether it is new. Raises Conflict if that one has another digest."""
    statement = (
        insert(connection, schema.bundles)
        .on_conflict_do_nothing(index_elements=["session_id", "version"])
        .returning(_u.version)
    )
    if connection.execute(statement, codec.bundle_values(record)).first() is not None:
        return True
    key = {"session_id": record.session_id, "version": record.version}
    if connection.execute(_DIGEST, key).scalar_one() != record.sha256:
        raise errors.Conflict(
            f"version {record.version} of session {record.session_id} exists already, with"
            " another digest",
            code="bundle_exists",
        )
    update(connection, record)
    return False


def update(connection: Connection, record: BundleRecord) -> None:
    """Write healthy, provider and summary of a record within the caller's transaction."""
    connection.execute(
        _UPDATE.values(healthy=record.healthy, provider=record.provider, summary=record.summary),
        {"of_session": record.session_id, "of_version": record.version},
    )


class SqlBundleRecords:
    """ports.BundleRecords."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def keep(
        self, record: BundleRecord, session: Session, limits: StorageLimits | None = None
    ) -> Session:
        """As the port says. Two sessions that store at the same time may exceed the limits of
        user and installation by one bundle."""
        with self._database.write() as connection:
            # The session first: of two concurrent uploads the second is stale.
            saved = sessions.write(connection, session)
            if limits is None:
                write(connection, record)
                return saved
            stored = _stored(connection, session.id, session.user_id)
            if write(connection, record):
                _check_room(limits, stored, record)
                _drop_drafts(connection, session.id, limits.drafts)
            return saved

    def list(self, session_id: SessionId) -> Sequence[BundleRecord]:
        """Oldest version first."""
        with self._database.read() as connection:
            rows = connection.execute(_LIST, {"session_id": session_id})
            return [codec.bundle_of(row) for row in rows]

    def stored(self, session_id: SessionId, user_id: UserId) -> Stored:
        with self._database.read() as connection:
            return _stored(connection, session_id, user_id)

    def retire(self, session: Session, delete_after: datetime) -> Session:
        with self._database.write() as connection:
            saved = sessions.write(connection, session)
            connection.execute(
                _RETIRE.values(delete_after=delete_after), {"of_session": session.id}
            )
            return saved

    def prune(self, now: datetime) -> int:
        """As the port says. The bytes are deleted later, by the sweep."""
        with self._database.write() as connection:
            rows = connection.execute(_EXPIRED, {"now": now}).all()
            if rows:
                connection.execute(
                    _DELETE,
                    [{"of_session": row.session_id, "of_version": row.version} for row in rows],
                )
            return len(rows)

    def unnamed(self, digests: Collection[Sha256]) -> Collection[Sha256]:
        names = sorted(digests)
        records = select(_u.sha256).where(_u.sha256.in_(names))
        live = select(_s.bundle).where(_s.bundle.in_(names), text(schema.SESSION_LIVE))
        with self._database.read() as connection:
            named = {*connection.execute(records).scalars(), *connection.execute(live).scalars()}
        return [digest for digest in names if digest not in named]

    def digests(self, after: str, limit: int) -> Sequence[Sha256]:
        with self._database.read() as connection:
            rows = connection.execute(_DIGESTS, {"after": after, "count": limit})
            return [Sha256(digest) for digest in rows.scalars()]


def _stored(connection: Connection, session_id: SessionId, user_id: UserId) -> Stored:
    of_user = _u.session_id.in_(select(_s.id).where(_s.user_id == user_id))
    return Stored(
        versions=connection.execute(_COUNT, {"session_id": session_id}).scalar_one(),
        session_bytes=_bytes_where(connection, _u.session_id == session_id),
        user_bytes=_bytes_where(connection, of_user),
        total_bytes=_bytes_where(connection),
    )


def _check_room(limits: StorageLimits, stored: Stored, record: BundleRecord) -> None:
    shortage = find_shortage(limits, stored, record.size_bytes)
    if shortage is not None:
        raise errors.TooLarge(
            shortage.message, code="storage_quota", scope=shortage.scope, limit=shortage.limit
        )


def _bytes_where(connection: Connection, *conditions: sa.ColumnElement[bool]) -> int:
    """The bytes of different bundles among those records. Equal bytes are stored once."""
    different: Any = select(_u.sha256, _u.size_bytes).where(*conditions).distinct().subquery()
    total = select(sa.cast(func.coalesce(func.sum(different.c.size_bytes), 0), sa.BigInteger))
    size: int = connection.execute(total).scalar_one()
    return size


def _drop_drafts(connection: Connection, session_id: SessionId, keep: int) -> None:
    versions = connection.execute(_DRAFTS, {"session_id": session_id}).scalars().all()
    if versions[keep:]:
        connection.execute(
            _DELETE,
            [{"of_session": session_id, "of_version": version} for version in versions[keep:]],
        )
