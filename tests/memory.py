"""Reads the memory of processes, to find what must not be there."""

from __future__ import annotations

from pathlib import Path


def memory_of(pid: int) -> bytes:
    """All that a process can read and write, one piece after the other."""
    parts = []
    with Path(f"/proc/{pid}/mem").open("rb", 0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            area, rights, *_ = line.split()
            if rights.startswith("rw"):
                start, end = (int(number, 16) for number in area.split("-"))
                memory.seek(start)
                parts.append(memory.read(end - start))
    return b"".join(parts)
