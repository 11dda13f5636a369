"""Statements that run often: compiled once, and run on the driver directly.

SQLAlchemy takes longer to prepare a statement than SQLite to run it. `Database` runs lookups; the
other modules of this package run both kinds within the transaction of a `Database.write`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.sql.compiler import SQLCompiler


class Lookup:
    """A query for one row."""

    def __init__(self, query: sa.Select[Any]) -> None:
        self.query = query
        self._compiled: dict[str, Compiled] = {}

    def first(
        self, dialect: Dialect, connection: Any, values: Mapping[str, Any]
    ) -> Sequence[Any] | None:
        """The row for these values of its parameters, or None. `connection` is a connection of the
        driver. Raises the driver's errors."""
        compiled = self.compiled(dialect)
        row = connection.execute(compiled.text, compiled.arguments(values)).fetchone()
        if row is None:
            return None
        fields = list(row)
        for position, process in compiled.processors:
            fields[position] = process(fields[position])
        return fields

    def compiled(self, dialect: Dialect) -> Compiled:
        if dialect.name not in self._compiled:
            self._compiled[dialect.name] = _compile(self.query, dialect)
        return self._compiled[dialect.name]


class Write:
    """An INSERT of one row, or an UPDATE. Each call gives values to the same columns."""

    def __init__(self, statement: sa.Insert | sa.Update) -> None:
        self._statement = statement
        self._compiled: dict[str, Compiled] = {}

    def run(self, connection: Connection, values: Mapping[str, Any]) -> int:
        """Returns the number of rows. Raises SQLAlchemy's errors."""
        dialect = connection.dialect
        if dialect.name not in self._compiled:
            self._compiled[dialect.name] = _compile(self._statement, dialect, values.keys())
        compiled = self._compiled[dialect.name]
        driver: Any = connection.connection.dbapi_connection
        try:
            return int(driver.execute(compiled.text, compiled.arguments(values)).rowcount)
        except dialect.loaded_dbapi.Error as error:
            raise _wrapped(error, dialect) from error


def look_up(connection: Connection, lookup: Lookup, **values: Any) -> Sequence[Any] | None:
    """The row that `lookup` finds for these values, or None. Raises SQLAlchemy's errors."""
    dialect = connection.dialect
    try:
        return lookup.first(dialect, connection.connection.dbapi_connection, values)
    except dialect.loaded_dbapi.Error as error:
        raise _wrapped(error, dialect) from error


@dataclass(frozen=True, kw_only=True)
class Compiled:
    """A statement as one driver takes it."""

    text: str
    order: Sequence[str] | None  # of the parameters; None: the driver takes them by name
    own: Mapping[str, Any]  # the values that the statement itself has, as the driver takes them
    binders: Mapping[str, Callable[[Any], Any]]  # what makes a value one for the driver
    processors: Sequence[tuple[int, Callable[[Any], Any]]]  # of a row's values, by position

    def arguments(self, values: Mapping[str, Any]) -> tuple[Any, ...] | dict[str, Any]:
        """What the driver takes for these values of the parameters."""
        given = {**self.own}
        for name, value in values.items():
            given[name] = _bound(value, self.binders.get(name))
        return given if self.order is None else tuple([given[name] for name in self.order])


def _compile(
    statement: sa.Select[Any] | sa.Insert | sa.Update,
    dialect: Dialect,
    columns: Collection[str] | None = None,
) -> Compiled:
    """`columns` are those that get values."""
    keys = None if columns is None else list(columns)
    compiled = statement.compile(dialect=dialect, column_keys=keys)
    assert isinstance(compiled, SQLCompiler)
    binds = {name: bind for bind, name in compiled.bind_names.items()}
    binders = {
        name: process
        for name, bind in binds.items()
        if (process := bind.type.dialect_impl(dialect).bind_processor(dialect)) is not None
    }
    own = {name: bind.value for name, bind in binds.items() if not bind.required}
    selected = statement.selected_columns if isinstance(statement, sa.Select) else ()
    return Compiled(
        text=str(compiled),
        order=compiled.positiontup if dialect.positional else None,
        own={name: _bound(value, binders.get(name)) for name, value in own.items()},
        binders=binders,
        processors=[
            (position, process)
            for position, column in enumerate(selected)
            if (process := column.type.dialect_impl(dialect).result_processor(dialect, None))
            is not None
        ],
    )


def _bound(value: Any, binder: Callable[[Any], Any] | None) -> Any:
    return value if binder is None else binder(value)


def _wrapped(error: Exception, dialect: Dialect) -> Exception:
    """SQLAlchemy's error for one of the driver's."""
    base = dialect.loaded_dbapi.Error
    return exc.DBAPIError.instance(None, None, error, base, hide_parameters=True, dialect=dialect)
