"""What calls to the model may cost and did cost: ports.Usage on SQL. The store creates it.

Three tables. `accounts` holds what is spent or reserved against each budget, so that admitting a
call reads three rows and no history. `reservations` holds the reserved part, one row per call under
way. `usage` is the history of calls, without those that nobody answered and nobody bills. Each
change is one transaction. All transactions lock accounts in the order of their keys, so that they
can't deadlock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from orchestrator.adapters.sql_store import schema
from orchestrator.adapters.sql_store.database import Database
from orchestrator.domain import errors
from orchestrator.domain.ids import SessionId, UserId
from orchestrator.domain.llm import budgets
from orchestrator.domain.llm.budgets import Account, Budgets, Scope, Spend, accounts
from orchestrator.domain.llm.pricing import TokenCounts
from orchestrator.domain.llm.usage import Call, GroupBy, Outcome, Reservation, UsageSum

_EXPIRED_BATCH = 200
_PRUNE_BATCH = 1000  # rows that one transaction of `prune` deletes

_a = schema.accounts.c
_r = schema.reservations.c
_u = schema.usage.c

_COUNTS = (
    _u.input_tokens,
    _u.output_tokens,
    _u.cache_write_5m_tokens,
    _u.cache_write_1h_tokens,
    _u.cache_read_tokens,
)
_KEYS: Mapping[GroupBy, sa.Column[str]] = {
    GroupBy.USER: _u.user_id,
    GroupBy.DAY: _u.day,
    GroupBy.MODEL: _u.model,
    GroupBy.SESSION: _u.session_id,
    GroupBy.PROVIDER: _u.provider,
}
_EXPIRED = (
    select(schema.reservations)
    .where(_r.expires_at <= bindparam("now"))
    .order_by(_r.expires_at)
    .limit(_EXPIRED_BATCH)
)
_ANY_EXPIRED = select(_r.call_id).where(_r.expires_at <= bindparam("now")).limit(1)
_SPENT = select(_a.key, _a.tokens, _a.micro_usd).where(
    _a.key.in_(bindparam("keys", expanding=True))
)
_INSERT_RESERVATION = sa.insert(schema.reservations)

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
_OUTPUT_TOKENS = select(sa.cast(func.sum(_u.output_tokens), sa.BigInteger)).where(
    _u.at >= bindparam("since"), _u.outcome == Outcome.SERVED.value
)
_OUTPUTS = (
    _OUTPUT_TOKENS.where(_u.change == 0)
    .group_by(_u.session_id)
    .order_by(func.max(_u.at).desc())
    .limit(bindparam("count"))
)
_OUTPUTS_OF_CHANGES = (
    _OUTPUT_TOKENS.where(_u.change > 0)
    .group_by(_u.session_id, _u.change)
    .order_by(func.max(_u.at).desc())
    .limit(bindparam("count"))
)


class SqlUsage:
    """ports.Usage."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def reserve(self, reservation: Reservation, limits: Budgets, now: datetime) -> None:
        accounts = _accounts(reservation, limits)
        with self._database.read() as connection:
            has_expired = connection.execute(_ANY_EXPIRED, {"now": now}).first() is not None
            if not has_expired:
                # Who has nothing left asks as often as it likes: that needs no turn as a writer.
                _check_room(connection, accounts, reservation)
        if has_expired:
            self._release_expired(now)
        with self._database.write() as connection:
            for account in accounts:
                if not _add_to_account(connection, account, reservation.worst, now):
                    raise _refusal(connection, account, reservation)
            connection.execute(_INSERT_RESERVATION, _reservation_values(reservation))

    def renew(self, holder: str, until: datetime) -> None:
        with self._database.write() as connection:
            connection.execute(
                sa.update(schema.reservations)
                .where(_r.holder == holder, _r.expires_at < until)
                .values(expires_at=until)
            )

    def settle(self, call: Call) -> None:
        with self._database.write() as connection:
            # First, as in `_release_expired`: whoever deletes the reservation accounts for it.
            reserved = connection.execute(
                sa.delete(schema.reservations)
                .where(_r.call_id == call.call_id)
                .returning(_r.tokens, _r.micro_usd)
            ).first()
            is_new = _record(connection, call) if call.is_recorded else reserved is not None
            if not is_new:
                return  # a repeat: it was settled before, but its caller got no answer
            tokens, micro_usd = (0, 0) if reserved is None else reserved
            correction = Spend(
                tokens=call.counts.total - tokens, micro_usd=call.micro_usd - micro_usd
            )
            for account in _accounts(call, Budgets()):
                _add_to_account(connection, account, correction, call.at)

    def spent(self, keys: Iterable[str]) -> Mapping[str, Spend]:
        with self._database.read() as connection:
            return _read_spent(connection, keys)

    def session_sums(self, session_id: SessionId) -> Sequence[UsageSum]:
        return self._sums(GroupBy.PROVIDER, _u.session_id == session_id)

    def providers(self, session_id: SessionId, change: int) -> Sequence[str]:
        parameters = {"session_id": session_id, "change": change}
        with self._database.read() as connection:
            return connection.execute(_PROVIDERS, parameters).scalars().all()

    def output_tokens(self, *, changes: bool, since: datetime, limit: int) -> Sequence[int]:
        query = _OUTPUTS_OF_CHANGES if changes else _OUTPUTS
        with self._database.read() as connection:
            tokens = connection.execute(query, {"since": since, "count": limit})
            return tokens.scalars().all()

    def sums(
        self,
        by: GroupBy,
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
        pruned = self._delete_old(_u.call_id, _u.at, before)
        self._delete_old(_a.key, _a.changed_at, before)
        return pruned

    def _delete_old(
        self, key: sa.Column[str], changed_at: sa.Column[datetime], before: datetime
    ) -> int:
        old = select(key).where(changed_at < before).order_by(changed_at).limit(_PRUNE_BATCH)
        deleted = 0
        while True:  # in batches: SQLite has one writer, and nobody should wait long for it
            with self._database.write() as connection:
                statement = sa.delete(key.table).where(key.in_(old), changed_at < before)
                count = connection.execute(statement).rowcount
            deleted += count
            if count < _PRUNE_BATCH:
                return deleted

    def _sums(
        self, by: GroupBy, *conditions: sa.ColumnElement[bool], limit: int = 100
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
            .order_by(
                *([key.desc()] if by is GroupBy.DAY else [func.sum(_u.micro_usd).desc(), key])
            )
            .limit(limit)
        )
        with self._database.read() as connection:
            return [_sum_of(row) for row in connection.execute(query)]

    def _release_expired(self, now: datetime) -> None:
        """Release expired reservations: their processes died. This is a transaction of its own. It
        locks other accounts than the caller does, which would break the order of the keys."""
        with self._database.write() as connection:
            rows = connection.execute(
                _EXPIRED.with_for_update(skip_locked=True), {"now": now}
            ).all()
            lost_calls = [_lost_call(row, now) for row in rows]
            expired = _r.call_id.in_([row.call_id for row in rows])
            connection.execute(sa.delete(schema.reservations).where(expired))
            for call in lost_calls:
                _record(connection, call)
            for account, refund in _refunds(rows, lost_calls):
                _add_to_account(connection, account, refund, now)


def _refunds(rows: Sequence[Any], lost_calls: Sequence[Call]) -> Sequence[tuple[Account, Spend]]:
    """The (negative) amount for each account, in the order in which accounts are locked."""
    refunds: dict[str, tuple[Account, Spend]] = {}
    for row, call in zip(rows, lost_calls, strict=True):
        for account in _accounts(call, Budgets()):
            _, total = refunds.get(account.key, (account, Spend()))
            refunds[account.key] = (
                account,
                Spend(tokens=total.tokens - row.tokens, micro_usd=total.micro_usd - row.micro_usd),
            )
    return [refunds[key] for key in sorted(refunds)]


def _accounts(entry: Reservation | Call, budgets: Budgets) -> Sequence[Account]:
    return accounts(budgets, entry.session_id, entry.user_id, entry.day)


def _check_room(
    connection: Connection, accounts: Sequence[Account], reservation: Reservation
) -> None:
    """Raise the refusal of the first account that has no room for the reservation now."""
    spent = _read_spent(connection, [account.key for account in accounts])
    for account in accounts:
        before = spent.get(account.key, Spend())
        if not budgets.fits(before, reservation.worst, account.limit):
            raise _refusal(connection, account, reservation)


def _refusal(
    connection: Connection, account: Account, reservation: Reservation
) -> errors.SpawnError:
    spent = _read_spent(connection, [account.key]).get(account.key, Spend())
    reserved = _read_reserved(connection, account, reservation)
    return budgets.refusal(account, spent, reserved, reservation.worst)


def _record(connection: Connection, call: Call) -> bool:
    """Write the call. It replaces an entry of the same call that says LOST. False if another
    entry exists: then nothing is written."""
    statement = _RECORD[connection.dialect.name]
    return connection.execute(statement, _call_values(call)).first() is not None


def _reservation_values(wanted: Reservation) -> dict[str, Any]:
    fields = {name: value for name, value in vars(wanted).items() if name != "worst"}
    return {**fields, **vars(wanted.worst), "day": wanted.day.isoformat()}


def _call_values(call: Call) -> dict[str, Any]:
    fields = {name: value for name, value in vars(call).items() if name != "counts"}
    counts = {f"{name}_tokens": count for name, count in vars(call.counts).items()}
    return {**fields, **counts, "day": call.day.isoformat(), "outcome": call.outcome.value}


def _lost_call(row: Any, now: datetime) -> Call:
    """The entry for a call whose reservation expired: no tokens, no cost."""
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


def _add_to_account(connection: Connection, account: Account, amount: Spend, now: datetime) -> bool:
    """Add `amount` to the account. False if that exceeds its limit: then nothing is written.

    It is one statement: of two concurrent calls the second sees what the first wrote.
    """
    if not budgets.fits(Spend(), amount, account.limit):
        return False  # the statement compares with the limit only if the account's row exists
    values = {
        "key": account.key,
        "tokens": amount.tokens,
        "micro_usd": amount.micro_usd,
        "changed_at": now,
        "limit_tokens": account.limit.tokens,
        "limit_micro_usd": account.limit.micro_usd,
    }
    statement = _ADD[connection.dialect.name]
    return connection.execute(statement, values).first() is not None


def _add_statement(
    insert: postgresql.Insert | sqlite.Insert,
) -> sa.sql.dml.ReturningInsert[Any]:
    """The statement, built once: building it costs more than running it, and each call runs it."""
    new = insert.excluded
    after = {name: _a[name] + new[name] for name in ("tokens", "micro_usd")}
    limits = {name: bindparam(f"limit_{name}", type_=sa.BigInteger) for name in after}
    return (
        insert.values({column.name: bindparam(column.name) for column in schema.accounts.c})
        .on_conflict_do_update(
            index_elements=["key"],
            set_={**after, "changed_at": new.changed_at},
            where=sa.and_(
                *(sa.or_(limits[name] == 0, after[name] <= limits[name]) for name in after)
            ),
        )
        .returning(_a.key)
    )


def _record_statement(
    insert: postgresql.Insert | sqlite.Insert,
) -> sa.sql.dml.ReturningInsert[Any]:
    names = [column.name for column in schema.usage.c]
    return (
        insert.values({name: bindparam(name) for name in names})
        .on_conflict_do_update(
            index_elements=["call_id"],
            set_={name: insert.excluded[name] for name in names if name != "call_id"},
            where=_u.outcome == Outcome.LOST.value,
        )
        .returning(_u.call_id)
    )


_RECORD = {
    "postgresql": _record_statement(postgresql.insert(schema.usage)),
    "sqlite": _record_statement(sqlite.insert(schema.usage)),
}
_ADD = {
    "postgresql": _add_statement(postgresql.insert(schema.accounts)),
    "sqlite": _add_statement(sqlite.insert(schema.accounts)),
}


def _read_spent(connection: Connection, keys: Iterable[str]) -> Mapping[str, Spend]:
    """What is spent or reserved, by account key. Accounts never used are missing."""
    rows = connection.execute(_SPENT, {"keys": sorted(keys)})
    return {key: Spend(tokens=tokens, micro_usd=micro_usd) for key, tokens, micro_usd in rows}


def _read_reserved(connection: Connection, account: Account, reservation: Reservation) -> Spend:
    """What calls under way have reserved of this account, which `reservation` needs too."""
    of_day = _r.day == reservation.day.isoformat()
    conditions = {
        Scope.SESSION: (_r.session_id == reservation.session_id,),
        Scope.USER: (_r.user_id == reservation.user_id, of_day),
        Scope.INSTALLATION: (of_day,),
    }[account.scope]
    sums = (func.coalesce(func.sum(column), 0) for column in (_r.tokens, _r.micro_usd))
    query = select(*(sa.cast(total, sa.BigInteger) for total in sums)).where(*conditions)
    row = connection.execute(query).one()
    return Spend(tokens=row[0], micro_usd=row[1])
