"""A machine clock that tests set, for real processes: machine_clock.c and a file.

Only the wall clock changes, as when somebody sets it: the monotonic clocks run on.
"""

from __future__ import annotations

import mmap
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_SOURCE = Path(__file__).with_suffix(".c")


@dataclass(frozen=True)
class MachineClock:
    """The wall clock of the processes that run with `env`."""

    folder: Path
    cell: mmap.mmap  # the difference to the real clock in seconds, as 64 bits

    @property
    def env(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(self.folder / "clock.so"),
            "MACHINE_CLOCK": str(self.folder / "difference"),
        }

    def set_to(self, difference_s: int) -> None:
        """Set the clock to this many seconds after the real time, at once and for all processes."""
        self.cell[:8] = difference_s.to_bytes(8, "little", signed=True)

    def now_s(self) -> float:
        """What this clock shows: seconds since 1970."""
        return time.time() + int.from_bytes(self.cell[:8], "little", signed=True)


@contextmanager
def machine_clock() -> Iterator[MachineClock]:
    """A clock that shows the real time until a test sets it."""
    # Not in pytest's temporary folder: the proxy's workers can't read that one.
    folder = Path(tempfile.mkdtemp(prefix="spawn-clock-"))
    folder.chmod(0o755)
    try:
        library = folder / "clock.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, _SOURCE], check=True)
        path = folder / "difference"
        path.write_bytes(bytes(8))
        with path.open("r+b") as file, mmap.mmap(file.fileno(), 8) as cell:
            yield MachineClock(folder=folder, cell=cell)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
