"""What a new session or change needs to be taken in, and who waits before it. `SqlSessions.add` and
`SqlChanges.add` ask within their own transactions, so that concurrent requests can't exceed a limit
together."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam, func, select, text
from sqlalchemy.engine import Connection

from orchestrator.adapters.sql_store import codec, json_columns, schema
from orchestrator.adapters.sql_store.pool import hosts
from orchestrator.adapters.sql_store.prepared import Lookup, look_up
from orchestrator.domain import errors
from orchestrator.domain.ids import UserId
from orchestrator.domain.pool.host import Wish
from orchestrator.domain.sessions import rooms
from orchestrator.domain.sessions.priority import RECOVERY_RANK, rank_of
from orchestrator.domain.sessions.rooms import Demand, Waiting
from orchestrator.domain.sessions.session import Session
from orchestrator.ports import Idempotency

_ANY = Demand()
_MINUTE = timedelta(minutes=1)
_QUEUE_RETRY_S = 60.0
AT_ONCE_MAX = 1000  # places of the queue that are counted in one look, in some 50 us
_LIMIT_RETRY_S = 30.0  # a guess: nobody can tell when the user's next app ends

_s = schema.sessions.c
_QUEUED = text(schema.SESSION_QUEUED)
_COUNT_ACTIVE = Lookup(
    select(func.count())
    .select_from(schema.sessions)
    .where(_s.user_id == bindparam("user_id"), text(schema.SESSION_LIVE))
)
# Of the user's sessions, ended ones too, the one with that many younger ones.
_STARTED_AT = Lookup(
    select(_s.created_at)
    .where(_s.user_id == bindparam("user_id"))
    .order_by(_s.created_at.desc(), _s.id.desc())
    .offset(bindparam("younger"))
    .limit(1)
)
_c = schema.changes.c
_earlier = schema.changes.alias("earlier")
_LAST_NUMBER = (
    select(func.max(_earlier.c.number)).where(_earlier.c.session_id == _s.id).scalar_subquery()
)
# The same of changes. Of each session it reads only as many as may be added; whoever adds one
# updates its session.
_CHANGED_AT = (
    select(_c.created_at)
    .join_from(schema.sessions, schema.changes, _c.session_id == _s.id)
    .where(
        _s.user_id == bindparam("user_id"),
        _s.updated_at > bindparam("since"),
        _c.number > _LAST_NUMBER - bindparam("younger") - 1,
        _c.created_at > bindparam("since"),
    )
    .order_by(_c.created_at.desc())
    .offset(bindparam("younger"))
    .limit(1)
)
_LOCK_USER = select(func.pg_advisory_xact_lock(func.hashtext(bindparam("user_id"))))
_WAITS = sa.or_(_s.due_at <= bindparam("now"), _s.rank == RECOVERY_RANK)
_POSITION = (_s.rank, _s.created_at, _s.id)
_IS_AHEAD = sa.tuple_(*_POSITION) < sa.tuple_(
    bindparam("rank", type_=_s.rank.type),
    bindparam("created_at", type_=_s.created_at.type),
    bindparam("session_id", type_=_s.id.type),
)
_AT_ONCE: sa.ColumnElement[int] = sa.literal_column(str(AT_ONCE_MAX), sa.Integer)
# How many are ahead, as far as they are counted at once, and whether one of them is choosy. The
# queue has an index of its own, so this reads no row.
AHEAD = Lookup(
    select(
        select(func.count())
        .select_from(select(_s.id).where(_QUEUED, _WAITS, _IS_AHEAD).limit(_AT_ONCE).subquery())
        .scalar_subquery(),
        sa.exists(select(_s.id).where(text(schema.SESSION_CHOOSY), _WAITS, _IS_AHEAD)),
    )
)
_COUNT = select(func.count()).select_from(schema.sessions).where(_QUEUED, _WAITS)
_COUNT_AHEAD = _COUNT.where(_IS_AHEAD)
# Few, and an index has only them. All others are counted in an index, without reading a row.
_CHOOSY = select(_s.id, _s.wish, _s.crashes).where(text(schema.SESSION_CHOOSY), _WAITS)
_COUNT_CHOOSY = (
    select(func.count(), _s.wish, _s.crashes)
    .where(text(schema.SESSION_CHOOSY), _WAITS)
    .group_by(_s.wish, _s.crashes)
)
_COUNT_CHOOSY_AHEAD = _COUNT_CHOOSY.where(_IS_AHEAD)
_QUEUE = (
    select(_s.id, _s.due_at).where(_QUEUED, _WAITS).order_by(*_POSITION).limit(bindparam("most"))
)


def lock_user(connection: Connection, user_id: UserId) -> None:
    """Wait until no other transaction adds a session or change of this user. Holds until the
    transaction ends. SQLite has one writer and needs no lock."""
    if connection.dialect.name == "postgresql":
        connection.execute(_LOCK_USER, {"user_id": user_id})


def find_repeated(
    connection: Connection, user_id: UserId, idempotency: Idempotency
) -> Session | None:
    """The session that an earlier request with this key created. Raises Conflict if that request
    had another fingerprint."""
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


def check_active(connection: Connection, session: Session, max_active: int) -> None:
    """Raises LimitReached if its user has that many sessions that haven't ended."""
    row = look_up(connection, _COUNT_ACTIVE, user_id=session.user_id)
    if row is not None and row[0] >= max_active:
        raise errors.LimitReached(
            f"you have {max_active} apps running, the most for your plan; end one of them first",
            retry_after_s=_LIMIT_RETRY_S,
            limit=max_active,
        )


def check_rate(connection: Connection, session: Session, max_per_minute: int) -> None:
    """Raises LimitReached if its user has started that many sessions in the last minute."""
    younger = max_per_minute - 1
    row = look_up(connection, _STARTED_AT, user_id=session.user_id, younger=younger)
    oldest: datetime | None = None if row is None else row[0]
    if oldest is None or oldest <= session.created_at - _MINUTE:
        return
    raise errors.LimitReached(
        f"you have started {max_per_minute} apps within a minute, the most for your plan;"
        " try again a little later",
        code="too_many_starts",
        retry_after_s=math.ceil((oldest + _MINUTE - session.created_at).total_seconds()),
        limit=max_per_minute,
    )


def check_changes(
    connection: Connection, session: Session, now: datetime, max_per_minute: int
) -> None:
    """Raises LimitReached if its user's apps were given that many changes in the last minute."""
    asked = {
        "user_id": session.user_id,
        "since": now - _MINUTE,
        "younger": max_per_minute - 1,
    }
    oldest = connection.execute(_CHANGED_AT, asked).scalar()
    if oldest is None:
        return
    raise errors.LimitReached(
        f"you have changed your apps {max_per_minute} times within a minute, the most for your"
        " plan; try again a little later",
        code="too_many_changes",
        retry_after_s=math.ceil((oldest + _MINUTE - now).total_seconds()),
        limit=max_per_minute,
    )


def check_queue(connection: Connection, session: Session, max_ahead: int) -> None:
    ahead = count_ahead_of(connection, session, session.created_at)
    if ahead >= max_ahead:
        raise errors.NoCapacity(
            f"{ahead} others wait for an app already; try again later",
            code="queue_full",
            retry_after_s=_QUEUE_RETRY_S,
            limit=max_ahead,
        )


def count_ahead_of(connection: Connection, session: Session, now: datetime) -> int:
    """ports.Sessions.count_ahead_of."""
    count = count_of(session, look_up(connection, AHEAD, **position_of(session, now)))
    if count is not None:
        return count
    demands = demand_ahead_of(connection, session, now)
    if not session.wish and not any(demand.is_choosy for demand in demands):
        return sum(demand.count for demand in demands)
    return rooms.count_competing(hosts.kinds(connection), session.wish, demands)


def position_of(session: Session, now: datetime) -> Mapping[str, Any]:
    """The values that AHEAD takes."""
    return {
        "now": now,
        "rank": rank_of(session),
        "created_at": session.created_at,
        "session_id": session.id,
    }


def count_of(session: Session, ahead: Sequence[Any] | None) -> int | None:
    """How many compete with the session and are before it, if AHEAD tells."""
    if session.wish or ahead is None:
        return None
    count: int = ahead[0]
    return None if ahead[1] or count >= AT_ONCE_MAX else count


def demand_ahead_of(connection: Connection, session: Session, now: datetime) -> Sequence[Demand]:
    """ports.Sessions.demand_ahead_of."""
    return _demands(connection, _COUNT_AHEAD, _COUNT_CHOOSY_AHEAD, position_of(session, now))


def demand(connection: Connection, now: datetime) -> Sequence[Demand]:
    """ports.Sessions.demand."""
    return _demands(connection, _COUNT, _COUNT_CHOOSY, {"now": now})


def queue(connection: Connection, now: datetime, limit: int) -> Sequence[Waiting]:
    """ports.Sessions.queue."""
    rows = connection.execute(_QUEUE, {"now": now, "most": limit}).all()
    choosy = (
        {
            row.id: _demand_of(row.wish, row.crashes)
            for row in connection.execute(_CHOOSY, {"now": now})
        }
        if rows
        else {}
    )
    return [Waiting(id=row.id, due_at=row.due_at, demand=choosy.get(row.id, _ANY)) for row in rows]


def _demands(
    connection: Connection,
    count_all: sa.Select[Any],
    count_choosy: sa.Select[Any],
    parameters: Mapping[str, object],
) -> Sequence[Demand]:
    count: int = connection.execute(count_all, parameters).scalar_one()
    if not count:
        return []
    choosy = [
        replace(_demand_of(wish, crashes), count=equals)
        for equals, wish, crashes in connection.execute(count_choosy, parameters)
    ]
    # Read one after the other: on PostgreSQL a session may have joined the queue in between.
    others = max(0, count - sum(demand.count for demand in choosy))
    return rooms.grouped([Demand(count=others), *choosy])


@functools.lru_cache(maxsize=1024)
def _demand_of(wish: str | None, crashes: str | None) -> Demand:
    return Demand(
        wish=Wish() if wish is None else json_columns.wish_of(wish),
        cold=crashes is not None and rooms.gets_no_warm(json_columns.times_of(crashes)),
    )
