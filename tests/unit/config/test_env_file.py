"""The file spawn.env as editors of any system write it."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator import config


@pytest.mark.parametrize(
    "data",
    [
        b"SPAWN_WORKERS=3\nSPAWN_SLOTS=7",
        b"\xef\xbb\xbfSPAWN_WORKERS=3\nSPAWN_SLOTS=7\n",
        b"SPAWN_WORKERS=3\r\nSPAWN_SLOTS=7\r\n",
        b"SPAWN_WORKERS=2\nSPAWN_SLOTS=7\nSPAWN_WORKERS=3\n",
    ],
    ids=["plain", "byte order mark", "CRLF", "twice: the last one counts"],
)
def test_marks_and_line_ends_belong_to_no_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    for name in ("SPAWN_WORKERS", "SPAWN_SLOTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SPAWN_STATE_DIR", str(tmp_path))
    (tmp_path / "spawn.env").write_bytes(data)
    settings = config.load()
    assert (settings.processes.workers, settings.pool.slots) == (3, 7)
