"""The control plane's processes: their CPU time and their memory, by kind."""

from __future__ import annotations

import contextlib
import os
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.installation import Installation

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, kw_only=True)
class CpuTime:
    """CPU seconds by kind of process."""

    by_kind: Mapping[str, float]

    @property
    def total_s(self) -> float:
        return sum(self.by_kind.values())

    def since(self, before: CpuTime) -> CpuTime:
        """What was used since `before`."""
        kinds = self.by_kind.keys() | before.by_kind.keys()
        used = {kind: self.by_kind.get(kind, 0) - before.by_kind.get(kind, 0) for kind in kinds}
        return CpuTime(by_kind=used)

    def and_also(self, other: CpuTime) -> CpuTime:
        """The sum of both."""
        kinds = self.by_kind.keys() | other.by_kind.keys()
        both = {kind: self.by_kind.get(kind, 0) + other.by_kind.get(kind, 0) for kind in kinds}
        return CpuTime(by_kind=both)

    def each(self, count: int) -> str:
        """For people: of `count` things, the time of each."""
        return f"{self.total_s / count * 1000:.0f} ms"

    def parts(self, count: int = 1) -> str:
        """For people: the time by kind of process, of each of `count` things; the largest first."""
        parts = sorted(self.by_kind.items(), key=lambda part: -part[1])
        return ", ".join(
            f"{kind} {seconds / count * 1000:.0f}" for kind, seconds in parts if seconds
        )


def cpu_time(spawn: Installation) -> CpuTime:
    """The CPU time so far of all processes of an installation, and of their ended children.

    Source: proc(5), /proc/PID/stat, fields 14 to 17. A child that lives counts for itself alone:
    its parent gets its time when it has ended.
    """
    by_kind: defaultdict[str, float] = defaultdict(float)
    for pid in _pids(spawn):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            by_kind[_kind(pid)] += sum(map(int, fields[11:15])) / _TICKS_PER_S
    return CpuTime(by_kind=by_kind)


def memory_mb(spawn: Installation) -> dict[str, float]:
    """The memory (PSS) of the processes of each kind, in MB."""
    by_kind: defaultdict[str, float] = defaultdict(float)
    for pid in _pids(spawn):
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        match = re.search(r"^Pss:\s+(\d+)", text, re.MULTILINE)
        assert match is not None, text
        by_kind[_kind(pid)] += int(match[1]) / 1000
    return dict(by_kind)


def _pids(spawn: Installation) -> list[int]:
    return [spawn.supervisor_pid(), *spawn.pids("")]


def _kind(pid: int) -> str:
    command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    module = re.split(r"[ :]", command.split(" -m ")[-1].strip())[0]
    name = module.removeprefix("orchestrator.").removeprefix("entrypoints.").rpartition("/")[2]
    return "nginx" if not name or name.startswith("nginx") else name
