"""The interpreters that wait in warm sandboxes for an app."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from tests.e2e.installation import Installation

_KINDS = ("interpreters/python.py", "interpreters/node.js")
_REST_S = 1.5  # longer than one that still loads its modules pauses
_READY_S = 120.0
_FIRST_USER = 2_100_000_000  # a sandbox's user is this and its port


def wait_until_ready(spawn: Installation) -> None:
    """Wait until each warm sandbox has both kinds, and none of them works any more."""
    deadline = time.monotonic() + _READY_S
    before: dict[int, int] = {}
    while True:
        warm = [each for each in spawn.admin("pool")["sandboxes"] if each["state"] == "warm"]
        ticks = dict(_ticks({_FIRST_USER + sandbox["port"] for sandbox in warm}))
        if len(ticks) == len(warm) * len(_KINDS) and ticks == before:
            return
        assert time.monotonic() < deadline, f"no waiting interpreters within {_READY_S:.0f} s"
        before = ticks
        time.sleep(_REST_S)


def _ticks(users: set[int]) -> Iterator[tuple[int, int]]:
    """The interpreters of these users, and the processor time of each; see proc(5)."""
    for process in Path("/proc").glob("[1-9]*"):
        with contextlib.suppress(OSError):
            command = process.joinpath("cmdline").read_bytes().decode(errors="replace")
            if process.stat().st_uid in users and any(kind in command for kind in _KINDS):
                fields = process.joinpath("stat").read_text().rpartition(")")[2].split()
                yield int(process.name), int(fields[11]) + int(fields[12])
