"""The text of docs/compatibility.md, from the tables. A new table is a line in `TABLES`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.compat import apps, providers

_INTRODUCTION = """\
# Compatibility

What SpawnAI copes with. Tests try each row. Don't edit this file: `make compat` writes it from the
tables in [tests/compat](../tests/compat).
"""


@dataclass(frozen=True, kw_only=True)
class Table:
    """One section of the document."""

    title: str
    introduction: str
    head: Sequence[str]
    rows: Callable[[], Sequence[Sequence[str]]]


TABLES = (
    Table(
        title=providers.TITLE,
        introduction=providers.INTRODUCTION,
        head=providers.HEAD,
        rows=providers.rows,
    ),
    Table(title=apps.TITLE, introduction=apps.INTRODUCTION, head=apps.HEAD, rows=apps.rows),
)


def render() -> str:
    """The whole document."""
    return "\n".join([_INTRODUCTION, *map(_section, TABLES)])


def _section(table: Table) -> str:
    rows = [_line(row) for row in table.rows()]
    separator = "|" + "---|" * len(table.head)
    lines = [f"## {table.title}", "", table.introduction, "", _line(table.head), separator, *rows]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
