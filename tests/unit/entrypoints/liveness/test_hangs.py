"""The record of hangs: counted per process, and never in the way of what reads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.entrypoints.liveness import hangs
from tests.fakes.samples import NOW, later


def test_each_hang_is_counted_and_the_last_one_is_told(tmp_path: Path) -> None:
    assert hangs.read(tmp_path) == {}
    hangs.record(tmp_path, "api", "first", NOW)
    hangs.record(tmp_path, "daemon", "only", NOW)
    hangs.record(tmp_path, "api", "second", later(5))
    records = hangs.read(tmp_path)
    assert (records["api"].count, records["api"].reason) == (2, "second")
    assert records["api"].at == later(5).replace(microsecond=0)
    assert records["daemon"].count == 1


@pytest.mark.parametrize("text", ["", "[]", "{", '{"api": 3}', '{"api": {"count": "x"}}'])
def test_a_damaged_record_counts_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "hangs.json").write_text(text)
    assert hangs.read(tmp_path) == {}
    hangs.record(tmp_path, "api", "first", NOW)
    assert hangs.read(tmp_path)["api"].count == 1
