"""Sessions and their history: ports.Sessions on SQL. The store creates it.

Other modules of this package call `write` to save a session within their own transactions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam, func, select, text
from sqlalchemy.engine import Connection

from orchestrator.adapters.sql_store import admission, codec, schema
from orchestrator.adapters.sql_store.database import Database
from orchestrator.adapters.sql_store.prepared import Lookup, Write, look_up
from orchestrator.domain import errors
from orchestrator.domain.ids import SessionId, UserId
from orchestrator.domain.sessions.bundles import BundleRecord
from orchestrator.domain.sessions.progress import message_of, progress_of
from orchestrator.domain.sessions.rooms import Demand, Waiting
from orchestrator.domain.sessions.session import Session, SessionState, Tier, Wanted
from orchestrator.ports import Idempotency, SessionPosition

EVENTS_MAX = 1000  # the last ones of a session
_BATCH = 200  # rows that one transaction of `prune` deletes
_LIFE_S = 600  # of an app that is worth more than one that ended at once

_s = schema.sessions.c
_LIVE = text(schema.SESSION_LIVE)
_ENDED = text(schema.SESSION_ENDED)
_NOT_QUEUED = text(f"NOT ({schema.SESSION_QUEUED})")

# Runs at every poll of a status.
_GET = Lookup(select(*codec.SESSION).where(_s.id == bindparam("session_id")))
# Statements are built once: building one takes longer than SQLite takes to run it.
_SAVE = Write(
    sa.update(schema.sessions).where(
        _s.id == bindparam("session_id"), _s.revision == bindparam("expected_revision")
    )
)
_INSERT = Write(sa.insert(schema.sessions))
_INSERT_EVENT = Write(sa.insert(schema.events))
_GET_MANY = select(*codec.SESSION).where(_s.id.in_(bindparam("session_ids", expanding=True)))
# Runs at every write of a session.
_LAST_EVENT = Lookup(
    select(func.max(schema.events.c.seq)).where(
        schema.events.c.session_id == bindparam("session_id")
    )
)
_DROP_EVENTS = sa.delete(schema.events).where(
    schema.events.c.session_id == bindparam("of_session"), schema.events.c.seq <= bindparam("last")
)
_COUNTS = select(_s.state, func.count()).group_by(_s.state)
# For the maximum alone SQLite walks the index on created_at, past all that have ended.
_NEWEST_IN_STATES = select(func.max(_s.created_at), func.count()).where(
    _s.state.in_(bindparam("states", expanding=True))
)
# A session that has not started and is wanted GONE doesn't queue: ending it needs no slot.
_DUE = (
    select(*codec.SESSION)
    .where(_LIVE, _NOT_QUEUED, _s.due_at <= bindparam("now"))
    .order_by(_s.due_at, _s.id)
    .limit(bindparam("count"))
)
_EXPIRED = (
    select(*codec.SESSION)
    .where(_LIVE, text(schema.SESSION_WANTED), _s.expires_at <= bindparam("now"))
    .order_by(_s.expires_at)
    .limit(bindparam("count"))
)
_EXPIRED_LOCKED = _EXPIRED.with_for_update(key_share=True, skip_locked=True)
_PRUNABLE_SESSIONS = (
    select(_s.id)
    .where(_ENDED, _s.updated_at < bindparam("before"))
    .limit(_BATCH)
    .with_for_update(skip_locked=True)
)
_NEWEST_FIRST = (_s.created_at.desc(), _s.id.desc())
# An app that ran for a while has taken a slot for as long: nobody can make thousands of them, as
# visitors can make users and apps that end at once.
_HAS_LIVED = sa.case(
    (
        sa.and_(
            _s.version > 0,
            sa.extract("epoch", _s.updated_at) - sa.extract("epoch", _s.created_at) >= _LIFE_S,
        ),
        1,
    ),
    else_=0,
)
_OF_USER = (
    select(
        *(_s.id, _s.updated_at, _s.tier, _s.created_at, _HAS_LIVED.label("has_lived")),
        func.row_number().over(partition_by=_s.user_id, order_by=_NEWEST_FIRST).label("of_user"),
    )
    .where(_ENDED)
    .subquery()
)
_u = _OF_USER.c
# First the apps that ran for a while: everybody's newest one, then everybody's second, and so on.
# So whoever has the most loses first, and nobody drives out what others have by making more.
_IN_TURN = (_u.has_lived.desc(), _u.of_user, _u.created_at.desc(), _u.id.desc())
_RANKED = select(_OF_USER, func.row_number().over(order_by=_IN_TURN).label("of_all")).subquery()
_r = _RANKED.c
_IS_OPERATORS = _r.tier == Tier.OPERATOR.value
_SURPLUS = select(_r.id).where(
    _r.updated_at < bindparam("before"),
    sa.or_(
        sa.and_(_r.of_user > bindparam("per_user"), ~_IS_OPERATORS), _r.of_all > bindparam("total")
    ),
)
_b = schema.sandboxes.c
_PRUNABLE_SANDBOXES = (
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
    """Save the session within the caller's transaction, if its revision is still the stored one.
    Also writes new entries of its history as events. Returns the session with its next revision.
    Raises StaleWrite, NotFound."""
    saved = replace(session, revision=session.revision + 1)
    values = codec.session_values(saved)
    values.update(session_id=values.pop("id"), expected_revision=session.revision)
    if _SAVE.run(connection, values) == 0:
        raise _write_error(connection, session)
    last = look_up(connection, _LAST_EVENT, session_id=session.id)
    _write_events(connection, session, (last[0] or 0) if last is not None else 0)
    return saved


class SqlSessions:
    """ports.Sessions."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(
        self,
        session: Session,
        idempotency: Idempotency | None,
        *,
        max_active: int,
        max_per_minute: int | None = None,
        max_ahead: int | None = None,
        version: BundleRecord | None = None,
    ) -> Session:
        values = {
            **codec.session_values(session),
            "idempotency_key": None if idempotency is None else idempotency.key,
            "idempotency_fingerprint": None if idempotency is None else idempotency.fingerprint,
        }
        with self._database.write() as connection:
            admission.lock_user(connection, session.user_id)
            if idempotency is not None:
                existing = admission.find_repeated(connection, session.user_id, idempotency)
                if existing is not None:
                    return existing
            admission.check_active(connection, session, max_active)
            if max_per_minute is not None:
                admission.check_rate(connection, session, max_per_minute)
            if max_ahead is not None:
                admission.check_queue(connection, session, max_ahead)
            _INSERT.run(connection, values)
            _write_events(connection, session, 0)
            if version is not None:
                connection.execute(sa.insert(schema.bundles), codec.bundle_values(version))
            return session

    def get(self, session_id: SessionId) -> Session:
        row = self._database.first(_GET, session_id=session_id)
        if row is None:
            raise _not_found(session_id)
        return codec.session_of(row)

    def get_many(self, session_ids: Sequence[SessionId]) -> Sequence[Session]:
        if not session_ids:
            return []
        with self._database.read() as connection:
            rows = connection.execute(_GET_MANY, {"session_ids": list(session_ids)})
            sessions = map(codec.session_of, rows)
            by_id = {session.id: session for session in sessions}
        return [by_id[session_id] for session_id in session_ids if session_id in by_id]

    def save(self, session: Session) -> Session:
        with self._database.write() as connection:
            return write(connection, session)

    def list(
        self,
        *,
        user_id: UserId | None = None,
        states: Iterable[SessionState] | None = None,
        id_prefix: str = "",
        after: SessionPosition | None = None,
        limit: int = 100,
    ) -> Sequence[Session]:
        query = select(*codec.SESSION).order_by(_s.created_at.desc(), _s.id.desc())
        if user_id is not None:
            query = query.where(_s.user_id == user_id)
        if states is not None:
            query = query.where(_s.state.in_([state.value for state in states]))
        if id_prefix:  # a range, which the index of the primary key answers
            query = query.where(_s.id >= id_prefix, _s.id < id_prefix + "~")
        sessions: list[Session] = []
        with self._database.read() as connection:
            # Two queries: the sessions that run are few and have an index of their own. One query
            # would sort all that ever ended.
            for part in _parts_after(query, after):
                rows = connection.execute(part.limit(limit - len(sessions)))
                sessions += [codec.session_of(row) for row in rows]
                if len(sessions) == limit:
                    break
        return sessions

    def counts(self) -> dict[SessionState, int]:
        with self._database.read() as connection:
            return {SessionState(state): count for state, count in connection.execute(_COUNTS)}

    def newest_in(self, states: Iterable[SessionState]) -> datetime | None:
        names = [state.value for state in states]
        with self._database.read() as connection:
            row = connection.execute(_NEWEST_IN_STATES, {"states": names}).one()
            newest: datetime | None = row[0]
            return newest

    def count_ahead_of(self, session: Session, now: datetime) -> int:
        position = admission.position_of(session, now)
        count = admission.count_of(session, self._database.first(admission.AHEAD, **position))
        if count is not None:
            return count
        with self._database.read() as connection:
            return admission.count_ahead_of(connection, session, now)

    def demand_ahead_of(self, session: Session, now: datetime) -> Sequence[Demand]:
        with self._database.read() as connection:
            return admission.demand_ahead_of(connection, session, now)

    def demand(self, now: datetime) -> Sequence[Demand]:
        with self._database.read() as connection:
            return admission.demand(connection, now)

    def queue(self, now: datetime, limit: int) -> Sequence[Waiting]:
        with self._database.read() as connection:
            return admission.queue(connection, now, limit)

    def due(self, now: datetime, limit: int) -> Sequence[Session]:
        with self._database.read() as connection:
            rows = connection.execute(_DUE, {"now": now, "count": limit})
            return [codec.session_of(row) for row in rows]

    def expire(self, now: datetime, limit: int) -> Sequence[Session]:
        parameters = {"now": now, "count": limit}
        with self._database.read() as connection:
            if connection.execute(_EXPIRED, parameters).first() is None:
                return []  # the usual case: don't take locks for it
        with self._database.write() as connection:
            # Rows that others have locked are skipped: they may be extended right now. The
            # reaper's next pass looks at them again.
            rows = connection.execute(_EXPIRED_LOCKED, parameters).all()
            return [write(connection, _end(codec.session_of(row), now)) for row in rows]

    def prune(self, ended_before: datetime) -> int:
        """As the port says. Also deletes sandboxes that were GONE by then and whose session isn't
        live: nothing else deletes them."""
        deleted = self._delete(schema.sessions, _PRUNABLE_SESSIONS, ended_before)
        self._delete(schema.sandboxes, _PRUNABLE_SANDBOXES, ended_before)
        return deleted

    def prune_surplus(self, ended_before: datetime, *, per_user: int, total: int) -> int:
        kept = {"before": ended_before, "per_user": per_user, "total": total}
        with self._database.read() as connection:
            ids = connection.execute(_SURPLUS, kept).scalars().all()
        for start in range(0, len(ids), _BATCH):
            batch = ids[start : start + _BATCH]  # they have ended: nobody changes them any more
            with self._database.write() as connection:
                gone = text(f"sandboxes.{schema.SANDBOX_GONE}")
                connection.execute(
                    sa.delete(schema.sandboxes).where(_b.session_id.in_(batch), gone)
                )
                connection.execute(sa.delete(schema.sessions).where(_s.id.in_(batch)))
        return len(ids)

    def _delete(self, table: sa.Table, ids_query: sa.Select[tuple[str]], before: datetime) -> int:
        deleted = 0
        while True:  # in batches: SQLite has one writer, and nobody should wait long for it
            with self._database.write() as connection:
                ids = connection.execute(ids_query, {"before": before}).scalars().all()
                connection.execute(sa.delete(table).where(table.c.id.in_(ids)))
            deleted += len(ids)
            if len(ids) < _BATCH:
                return deleted


def _end(session: Session, now: datetime) -> Session:
    """The session, wanted GONE and due now."""
    return replace(session, wanted=Wanted.GONE, due_at=now, updated_at=now)


def _parts_after(
    query: sa.Select[Any], position: SessionPosition | None
) -> Iterator[sa.Select[Any]]:
    """The list in two parts, live sessions and ended ones, from `position` on."""
    parts = [query.where(_LIVE), query.where(_ENDED)]
    if position is None:
        yield from parts
        return
    first, *others = parts[position.ended :]
    yield first.where(
        sa.tuple_(_s.created_at, _s.id)
        < sa.tuple_(
            sa.literal(position.created_at, _s.created_at.type),
            sa.literal(position.session_id, _s.id.type),
        )
    )
    yield from others


def _write_events(connection: Connection, session: Session, last_seq: int) -> None:
    """Write the entries of the history after number `last_seq` as events.

    The first entry has number 1; the history may have dropped it.
    """
    rows = []
    first_new = max(0, last_seq - session.history_dropped)
    first_seq = session.history_dropped + first_new + 1
    for seq, entry in enumerate(session.history[first_new:], start=first_seq):
        past = replace(session, state=entry.state)
        rows.append(
            {
                "session_id": session.id,
                "seq": seq,
                "at": entry.at,
                "state": entry.state.value,
                "progress": progress_of(past),
                "message": message_of(past),
            }
        )
    for row in rows:
        _INSERT_EVENT.run(connection, row)
    if rows:
        surplus = first_seq + len(rows) - 1 - EVENTS_MAX
        if surplus > 0:
            connection.execute(_DROP_EVENTS, {"of_session": session.id, "last": surplus})


def _write_error(connection: Connection, session: Session) -> errors.SpawnError:
    """The error for a write that matched no row: StaleWrite, or NotFound."""
    stored = connection.execute(select(_s.revision).where(_s.id == session.id)).scalar()
    if stored is None:
        return _not_found(session.id)
    return errors.StaleWrite(
        f"session {session.id} is at revision {stored}, not {session.revision}: read it again"
    )


def _not_found(session_id: SessionId) -> errors.NotFound:
    return errors.NotFound(f"there is no session {session_id}")
