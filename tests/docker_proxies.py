"""The processes that Docker runs for published ports, for tests that end or stop them."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path


def proxies_of(port: int | str) -> Sequence[int]:
    """The ids of the processes for this port of the machine."""
    arguments = f"\0-host-port\0{port}\0".encode()
    pids = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                if arguments in (folder / "cmdline").read_bytes():
                    pids.append(int(folder.name))
    return pids
