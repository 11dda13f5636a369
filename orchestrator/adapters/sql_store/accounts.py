"""The accounts table: what is spent or reserved against each budget. usage.py calls these
functions within its own transactions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from orchestrator.adapters.sql_store import schema
from orchestrator.domain.llm import budgets
from orchestrator.domain.llm.budgets import Account, Spend

_a = schema.accounts.c


def add_to_account(connection: Connection, account: Account, amount: Spend, now: datetime) -> bool:
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


_ADD = {
    "postgresql": _add_statement(postgresql.insert(schema.accounts)),
    "sqlite": _add_statement(sqlite.insert(schema.accounts)),
}


def read_spent(connection: Connection, keys: Iterable[str]) -> Mapping[str, Spend]:
    """What is spent or reserved, by account key. Accounts never used are missing."""
    query = select(_a.key, _a.tokens, _a.micro_usd).where(_a.key.in_(sorted(keys)))
    return {
        key: Spend(tokens=tokens, micro_usd=micro_usd)
        for key, tokens, micro_usd in connection.execute(query)
    }
