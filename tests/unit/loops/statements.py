"""Counts what passes ask of the database."""

from __future__ import annotations

from sqlalchemy import event

from orchestrator.adapters.sql_store import SqlStore
from tests.unit.services.world import World


def count_statements(world: World, part: str) -> list[str]:
    """A list that grows with each statement from now on that contains `part`."""
    assert isinstance(world.store, SqlStore)
    statements: list[str] = []

    def record(*arguments: object) -> None:
        statement = " ".join(str(arguments[2]).split())
        if part in statement:
            statements.append(statement)

    event.listen(world.store._database._engine, "before_cursor_execute", record)
    return statements
