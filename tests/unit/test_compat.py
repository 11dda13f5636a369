"""docs/compatibility.md says what the tables of the tests say."""

from __future__ import annotations

from tests.compat import document
from tests.compat.__main__ import FILE


def test_the_document_is_up_to_date() -> None:
    assert FILE.read_text("utf-8") == document.render(), "run: make compat"


def test_each_row_is_there_once() -> None:
    for table in document.TABLES:
        rows = [tuple(row[:2]) for row in table.rows()]
        assert len(set(rows)) == len(rows)
