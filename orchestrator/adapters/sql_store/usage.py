"""What calls to the model may cost, and did: ports.Usage on SQL. The store hands it out.

`accounts` holds what has been spent or set aside against each budget, so that admitting a call
reads three rows and no history; `reservations` says what of it is only set aside; `usage` is the
history. Each change of them is one transaction, and all lock accounts in the order of their keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam, func, select
from sqlalchemy.engine import Connection

from orchestrator.adapters.sql_store import accounts, schema
from orchestrator.adapters.sql_store.database import Database, insert
from orchestrator.domain.ids import SessionId, UserId
from orchestrator.domain.llm import budgets as budget
from orchestrator.domain.llm.budgets import Account, Budgets, Spend
from orchestrator.domain.llm.pricing import TokenCounts
from orchestrator.domain.llm.usage import By, Call, Outcome, Reservation, UsageSum

_EXPIRED_BATCH = 200

_r = schema.reservations.c
_u = schema.usage.c

_COUNTS = (
    _u.input_tokens,
    _u.output_tokens,
    _u.cache_write_5m_tokens,
    _u.cache_write_1h_tokens,
    _u.cache_read_tokens,
)
_KEYS: Mapping[By, sa.Column[str]] = {
    By.USER: _u.user_id,
    By.DAY: _u.day,
    By.MODEL: _u.model,
    By.SESSION: _u.session_id,
    By.PROVIDER: _u.provider,
}
_EXPIRED = (
    select(schema.reservations)
    .where(_r.expires_at <= bindparam("now"))
    .order_by(_r.expires_at)
    .limit(_EXPIRED_BATCH)
)

_PROVIDERS = (
    select(_u.provider)
    .where(
        _u.session_id == bindparam("session_id"),
        _u.change == bindparam("change"),
        _u.outcome == Outcome.SERVED.value,
    )
    .group_by(_u.provider)
    .order_by(func.max(_u.at))
)
_WRITTEN = select(sa.cast(func.sum(_u.output_tokens), sa.BigInteger)).where(
    _u.at >= bindparam("since"), _u.outcome == Outcome.SERVED.value
)
_OUTPUTS = (
    _WRITTEN.where(_u.change == 0)
    .group_by(_u.session_id)
    .order_by(func.max(_u.at).desc())
    .limit(bindparam("count"))
)
_OUTPUTS_OF_CHANGES = (
    _WRITTEN.where(_u.change > 0)
    .group_by(_u.session_id, _u.change)
    .order_by(func.max(_u.at).desc())
    .limit(bindparam("count"))
)


class SqlUsage:
    """ports.Usage."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def reserve(self, wanted: Reservation, budgets: Budgets, now: datetime) -> None:
        self._free_expired(now)
        with self._database.write() as connection:
            for account in _accounts(wanted, budgets):
                if not accounts.enter(connection, account, wanted.worst, now):
                    spent = accounts.spent(connection, [account.key]).get(account.key, Spend())
                    raise budget.exhausted(account, spent, wanted.worst)
            connection.execute(sa.insert(schema.reservations), _reservation_values(wanted))

    def renew(self, holder: str, until: datetime) -> None:
        with self._database.write() as connection:
            connection.execute(
                sa.update(schema.reservations)
                .where(_r.holder == holder, _r.expires_at < until)
                .values(expires_at=until)
            )

    def settle(self, call: Call) -> None:
        with self._database.write() as connection:
            # First, as `_free_expired` does: whoever has the reservation settles it.
            reserved = connection.execute(
                sa.delete(schema.reservations)
                .where(_r.call_id == call.call_id)
                .returning(_r.tokens, _r.micro_usd)
            ).first()
            if not _record(connection, call):
                return  # settled before; its answer got lost
            tokens, micro_usd = (0, 0) if reserved is None else reserved
            correction = Spend(
                tokens=call.counts.total - tokens, micro_usd=call.micro_usd - micro_usd
            )
            for account in _accounts(call, Budgets()):
                accounts.enter(connection, account, correction, call.at)

    def spent(self, keys: Iterable[str]) -> Mapping[str, Spend]:
        with self._database.read() as connection:
            return accounts.spent(connection, keys)

    def of_session(self, session_id: SessionId) -> Sequence[UsageSum]:
        """By provider, as the port says."""
        return self._sums(By.PROVIDER, _u.session_id == session_id)

    def providers(self, session_id: SessionId, change: int) -> Sequence[str]:
        asked = {"session_id": session_id, "change": change}
        with self._database.read() as connection:
            return connection.execute(_PROVIDERS, asked).scalars().all()

    def outputs(self, *, changes: bool, since: datetime, limit: int) -> Sequence[int]:
        query = _OUTPUTS_OF_CHANGES if changes else _OUTPUTS
        with self._database.read() as connection:
            found = connection.execute(query, {"since": since, "count": limit})
            return found.scalars().all()

    def sums(
        self,
        by: By,
        *,
        since: datetime,
        user_id: UserId | None = None,
        limit: int = 100,
    ) -> Sequence[UsageSum]:
        conditions = [_u.at >= since]
        if user_id is not None:
            conditions.append(_u.user_id == user_id)
        return self._sums(by, *conditions, limit=limit)

    def prune(self, before: datetime) -> int:
        with self._database.write() as connection:
            pruned = connection.execute(sa.delete(schema.usage).where(_u.at < before)).rowcount
            connection.execute(
                sa.delete(schema.accounts).where(schema.accounts.c.changed_at < before)
            )
            return pruned

    def _sums(
        self, by: By, *conditions: sa.ColumnElement[bool], limit: int = 100
    ) -> Sequence[UsageSum]:
        key = _KEYS[by]
        last = func.max(_u.at).label("last_at")
        query = (
            select(
                key,
                func.count(),
                *(sa.cast(func.sum(column), sa.BigInteger) for column in _COUNTS),
                sa.cast(func.sum(_u.micro_usd), sa.BigInteger),
                last,
            )
            .where(*conditions)
            .group_by(key)
            .order_by(*([key.desc()] if by is By.DAY else [func.sum(_u.micro_usd).desc(), key]))
            .limit(limit)
        )
        with self._database.read() as connection:
            return [_sum_of(row) for row in connection.execute(query)]

    def _free_expired(self, now: datetime) -> None:
        """Give back what processes that died had set aside. A transaction of its own: its accounts
        are others than the caller's, and would be locked out of order."""
        with self._database.read() as connection:
            if connection.execute(_EXPIRED.limit(1), {"now": now}).first() is None:
                return
        with self._database.write() as connection:
            rows = connection.execute(
                _EXPIRED.with_for_update(skip_locked=True), {"now": now}
            ).all()
            lost = [_lost(row, now) for row in rows]
            gone = sa.delete(schema.reservations).where(
                _r.call_id.in_([row.call_id for row in rows])
            )
            connection.execute(gone)
            for call in lost:
                _record(connection, call)
            for account, refund in _refunds(rows, lost):
                accounts.enter(connection, account, refund, now)


def _refunds(rows: Sequence[Any], lost: Sequence[Call]) -> Sequence[tuple[Account, Spend]]:
    """What goes back to each account, in the order in which accounts are locked."""
    refunds: dict[str, tuple[Account, Spend]] = {}
    for row, call in zip(rows, lost, strict=True):
        for account in _accounts(call, Budgets()):
            _, sofar = refunds.get(account.key, (account, Spend()))
            refunds[account.key] = (
                account,
                Spend(tokens=sofar.tokens - row.tokens, micro_usd=sofar.micro_usd - row.micro_usd),
            )
    return [refunds[key] for key in sorted(refunds)]


def _accounts(entry: Reservation | Call, budgets: Budgets) -> Sequence[Account]:
    return budget.accounts(budgets, entry.session_id, entry.user_id, entry.day)


def _record(connection: Connection, call: Call) -> bool:
    """Write the call down, over what was taken for lost; False when it is there already."""
    values = _call_values(call)
    statement = (
        insert(connection, schema.usage)
        .on_conflict_do_update(
            index_elements=["call_id"],
            set_={name: value for name, value in values.items() if name != "call_id"},
            where=_u.outcome == Outcome.LOST.value,
        )
        .returning(_u.call_id)
    )
    return connection.execute(statement, values).first() is not None


def _reservation_values(wanted: Reservation) -> dict[str, Any]:
    return {
        "call_id": wanted.call_id,
        "session_id": wanted.session_id,
        "user_id": wanted.user_id,
        "model": wanted.model,
        "tokens": wanted.worst.tokens,
        "micro_usd": wanted.worst.micro_usd,
        "day": wanted.day.isoformat(),
        "holder": wanted.holder,
        "expires_at": wanted.expires_at,
        "change": wanted.change,
    }


def _call_values(call: Call) -> dict[str, Any]:
    return {
        "call_id": call.call_id,
        "session_id": call.session_id,
        "user_id": call.user_id,
        "model": call.model,
        "provider": call.provider,
        "input_tokens": call.counts.input,
        "output_tokens": call.counts.output,
        "cache_write_5m_tokens": call.counts.cache_write_5m,
        "cache_write_1h_tokens": call.counts.cache_write_1h,
        "cache_read_tokens": call.counts.cache_read,
        "micro_usd": call.micro_usd,
        "duration_ms": call.duration_ms,
        "at": call.at,
        "day": call.day.isoformat(),
        "outcome": call.outcome.value,
        "change": call.change,
    }


def _lost(row: Any, now: datetime) -> Call:
    return Call(
        call_id=row.call_id,
        session_id=row.session_id,
        user_id=row.user_id,
        model=row.model,
        provider="",
        counts=TokenCounts(),
        micro_usd=0,
        duration_ms=0,
        at=now,
        day=date.fromisoformat(row.day),
        outcome=Outcome.LOST,
        change=row.change,
    )


def _sum_of(row: Sequence[Any]) -> UsageSum:
    key, calls, *counts, micro_usd, last_at = row
    return UsageSum(
        key=key,
        calls=calls,
        counts=TokenCounts(
            input=counts[0],
            output=counts[1],
            cache_write_5m=counts[2],
            cache_write_1h=counts[3],
            cache_read=counts[4],
        ),
        micro_usd=micro_usd,
        last_at=last_at,
    )
