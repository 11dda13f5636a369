"""What a host says of itself, read from the output of common commands. Pure; hosts.measure asks."""

from __future__ import annotations

import re


def free_disk_bytes(output: str) -> int | None:
    """Of the first file system in the output of `df -Pk`; None when there is none."""
    found = re.search(r"^\S.*?\s+\d+\s+\d+\s+(\d+)\s+\d+%\s", output, re.MULTILINE)
    return None if found is None else int(found[1]) * 1024


def free_memory_bytes(output: str) -> int | None:
    """What `/proc/meminfo` says is available without swapping; None when it doesn't."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB", output, re.MULTILINE)
    return None if found is None else int(found[1]) * 1024
