"""Sessions and their history: ports.Sessions on SQL. The store hands it out; sandboxes.py saves
sessions through `write` here, in transactions of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import bindparam, func, select, text
from sqlalchemy.engine import Connection

from orchestrator.adapters.sql_store import codec, schema
from orchestrator.adapters.sql_store.database import Database, Lookup
from orchestrator.domain import errors
from orchestrator.domain.ids import SessionId, UserId
from orchestrator.domain.people.access import RANK
from orchestrator.domain.sessions.progress import message_of, progress_of
from orchestrator.domain.sessions.session import Session, SessionState, Wanted
from orchestrator.ports import Idempotency

_LIMIT_RETRY_S = 30.0  # apps end by themselves; nobody knows better when the next one does
_BATCH = 200  # sessions that one transaction of prune deletes

_s = schema.sessions.c
_LIVE = text(schema.SESSION_LIVE)
_ENDED = text(schema.SESSION_ENDED)
_QUEUED = text(schema.SESSION_QUEUED)

# Behind every poll of a status.
_GET = Lookup(select(*codec.SESSION).where(_s.id == bindparam("session_id")))
# Statements are built once: to build one takes longer than SQLite takes to answer it.
_SAVE = sa.update(schema.sessions).where(
    _s.id == bindparam("session_id"), _s.revision == bindparam("seen")
)
_LOGGED = select(func.coalesce(func.max(schema.events.c.seq), 0)).where(
    schema.events.c.session_id == bindparam("session_id")
)
_COUNT_ACTIVE = (
    select(func.count())
    .select_from(schema.sessions)
    .where(_s.user_id == bindparam("user_id"), _LIVE)
)
_LOCK_USER = select(func.pg_advisory_xact_lock(func.hashtext(bindparam("user_id"))))
_COUNTS = select(_s.state, func.count()).group_by(_s.state)
_COUNT_IN = select(func.count()).where(_s.state.in_(bindparam("states", expanding=True)))
_WAITING = (
    select(func.count()).select_from(schema.sessions).where(_QUEUED, _s.due_at <= bindparam("now"))
)
_AHEAD = _WAITING.where(
    sa.tuple_(_s.rank, _s.created_at, _s.id)
    < sa.tuple_(
        bindparam("rank", type_=_s.rank.type),
        bindparam("created_at", type_=_s.created_at.type),
        bindparam("session_id", type_=_s.id.type),
    )
)
# A session that is to end and was never begun is under way too: it only has to be let go.
_IN_QUEUE = sa.case((_QUEUED, 1), else_=0)
_DUE = (
    select(*codec.SESSION)
    .where(_LIVE, _s.due_at <= bindparam("now"))
    .order_by(
        _IN_QUEUE,
        sa.case((_QUEUED, _s.rank), else_=0),
        sa.case((_QUEUED, _s.created_at), else_=_s.due_at),
        _s.id,
    )
    .limit(bindparam("count"))
)
_OVERDUE = (
    select(*codec.SESSION)
    .where(_LIVE, text(schema.SESSION_WANTED), _s.expires_at <= bindparam("now"))
    .order_by(_s.expires_at)
    .limit(bindparam("count"))
)
_OVERDUE_LOCKED = _OVERDUE.with_for_update(key_share=True, skip_locked=True)
_PRUNABLE = (
    select(_s.id)
    .where(_ENDED, _s.updated_at < bindparam("before"))
    .limit(_BATCH)
    .with_for_update(skip_locked=True)
)
_b = schema.sandboxes.c
_FORGETTABLE = (
    select(_b.id)
    .where(
        text(f"sandboxes.{schema.SANDBOX_GONE}"),
        _b.state_since < bindparam("before"),
        ~sa.exists().where(_s.id == _b.session_id, text(f"sessions.{schema.SESSION_LIVE}")),
    )
    .limit(_BATCH)
    .with_for_update(of=schema.sandboxes, skip_locked=True)
)


def write(connection: Connection, session: Session) -> Session:
    """Compare and swap on the revision, and log new entries of the history, in the caller's
    transaction. Returns the session with its next revision. Raises StaleWrite, NotFound."""
    saved = replace(session, revision=session.revision + 1)
    values = codec.session_values(saved)
    values.update(session_id=values.pop("id"), seen=session.revision)
    if connection.execute(_SAVE, values).rowcount == 0:
        raise _why_not_written(connection, session)
    logged = connection.execute(_LOGGED, {"session_id": session.id}).scalar_one()
    _log(connection, session, logged)
    return saved


class SqlSessions:
    """ports.Sessions."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, session: Session, idempotency: Idempotency | None, *, max_active: int) -> Session:
        values = codec.session_values(session)
        if idempotency is not None:
            values["idempotency_key"] = idempotency.key
            values["idempotency_fingerprint"] = idempotency.fingerprint
        with self._database.write() as connection:
            _lock_user(connection, session.user_id)
            if idempotency is not None:
                repeated = _made_before(connection, session.user_id, idempotency)
                if repeated is not None:
                    return repeated
            user = {"user_id": session.user_id}
            if connection.execute(_COUNT_ACTIVE, user).scalar_one() >= max_active:
                raise errors.LimitReached(
                    f"you have {max_active} apps running, the most for your plan;"
                    " end one of them first",
                    retry_after_s=_LIMIT_RETRY_S,
                    limit=max_active,
                )
            connection.execute(sa.insert(schema.sessions), values)
            _log(connection, session, 0)
            return session

    def get(self, session_id: SessionId) -> Session:
        row = self._database.first(_GET, session_id)
        if row is None:
            raise _not_found(session_id)
        return codec.session_of(row)

    def save(self, session: Session) -> Session:
        with self._database.write() as connection:
            return write(connection, session)

    def list(
        self,
        *,
        user_id: UserId | None = None,
        states: Iterable[SessionState] | None = None,
        limit: int = 100,
    ) -> Sequence[Session]:
        query = select(*codec.SESSION)
        if user_id is not None:
            query = query.where(_s.user_id == user_id)
        if states is not None:
            query = query.where(_s.state.in_([state.value for state in states]))
        query = query.order_by(_s.created_at.desc(), _s.id.desc()).limit(limit)
        with self._database.read() as connection:
            return [codec.session_of(row) for row in connection.execute(query)]

    def counts(self) -> dict[SessionState, int]:
        with self._database.read() as connection:
            return {SessionState(state): count for state, count in connection.execute(_COUNTS)}

    def count_in(self, states: Iterable[SessionState]) -> int:
        wanted = {"states": [state.value for state in states]}
        with self._database.read() as connection:
            count: int = connection.execute(_COUNT_IN, wanted).scalar_one()
            return count

    def ahead_of(self, session: Session, now: datetime) -> int:
        place = {
            "now": now,
            "rank": RANK[session.tier],
            "created_at": session.created_at,
            "session_id": session.id,
        }
        with self._database.read() as connection:
            count: int = connection.execute(_AHEAD, place).scalar_one()
            return count

    def waiting(self, now: datetime) -> int:
        with self._database.read() as connection:
            count: int = connection.execute(_WAITING, {"now": now}).scalar_one()
            return count

    def due(self, now: datetime, limit: int) -> Sequence[Session]:
        with self._database.read() as connection:
            rows = connection.execute(_DUE, {"now": now, "count": limit})
            return [codec.session_of(row) for row in rows]

    def expire(self, now: datetime, limit: int) -> Sequence[Session]:
        asked = {"now": now, "count": limit}
        with self._database.read() as connection:
            if connection.execute(_OVERDUE, asked).first() is None:
                return []  # the reaper finds nothing most of the time: no reason to lock
        with self._database.write() as connection:
            # What is locked is being changed, perhaps extended: the next pass looks at it again.
            rows = connection.execute(_OVERDUE_LOCKED, asked).all()
            return [write(connection, _ending(codec.session_of(row), now)) for row in rows]

    def prune(self, ended_before: datetime) -> int:
        """As the port says. Sandboxes that were GONE by then, and whose session isn't live, go
        with them: nobody else would delete those."""
        deleted = self._delete(schema.sessions, _PRUNABLE, ended_before)
        self._delete(schema.sandboxes, _FORGETTABLE, ended_before)
        return deleted

    def _delete(self, table: sa.Table, which: sa.Select[tuple[str]], before: datetime) -> int:
        deleted = 0
        while True:  # in batches, so that nobody waits long for the one writer of SQLite
            with self._database.write() as connection:
                ids = connection.execute(which, {"before": before}).scalars().all()
                connection.execute(sa.delete(table).where(table.c.id.in_(ids)))
            deleted += len(ids)
            if len(ids) < _BATCH:
                return deleted


def _ending(session: Session, now: datetime) -> Session:
    return replace(session, wanted=Wanted.GONE, due_at=now, updated_at=now)


def _log(connection: Connection, session: Session, logged: int) -> None:
    """Append the entries of the history after the first `logged` ones to the events."""
    rows = []
    for seq, entry in enumerate(session.history[logged:], start=logged + 1):
        then = replace(session, state=entry.state)
        rows.append(
            {
                "session_id": session.id,
                "seq": seq,
                "at": entry.at,
                "state": entry.state.value,
                "progress": progress_of(then),
                "message": message_of(then),
            }
        )
    if rows:
        connection.execute(sa.insert(schema.events), rows)


def _lock_user(connection: Connection, user_id: UserId) -> None:
    """One addition per user at a time, until the end of the transaction. SQLite has one writer."""
    if connection.dialect.name == "postgresql":
        connection.execute(_LOCK_USER, {"user_id": user_id})


def _made_before(
    connection: Connection, user_id: UserId, idempotency: Idempotency
) -> Session | None:
    row = connection.execute(
        select(*codec.SESSION, _s.idempotency_fingerprint).where(
            _s.user_id == user_id, _s.idempotency_key == idempotency.key
        )
    ).first()
    if row is None:
        return None
    if row[-1] != idempotency.fingerprint:
        raise errors.Conflict(
            "this Idempotency-Key was used for another request: use a new one",
            code="idempotency_conflict",
        )
    return codec.session_of(row)


def _why_not_written(connection: Connection, session: Session) -> errors.SpawnError:
    stored = connection.execute(select(_s.revision).where(_s.id == session.id)).scalar()
    if stored is None:
        return _not_found(session.id)
    return errors.StaleWrite(
        f"session {session.id} is at revision {stored}, not {session.revision}: read it again"
    )


def _not_found(session_id: SessionId) -> errors.NotFound:
    return errors.NotFound(f"there is no session {session_id}")
