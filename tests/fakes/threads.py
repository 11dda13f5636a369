"""Ways to run a call of a bulkhead without threads, and to wait for those of others."""

from __future__ import annotations

import time
from collections.abc import Callable

_DEADLINE_S = 20.0


def run_at_once(call: Callable[[], None]) -> None:
    """Run the call, so that a pass has ended with all its work when it returns."""
    call()


class Deferred:
    """Holds calls back until `run_pending`, like work on a host that is slow to answer."""

    def __init__(self) -> None:
        self.pending: list[Callable[[], None]] = []

    def __call__(self, call: Callable[[], None]) -> None:
        self.pending.append(call)

    def run_pending(self) -> None:
        pending, self.pending = self.pending, []
        for call in pending:
            call()


def wait_until(is_so: Callable[[], bool]) -> None:
    """Wait for what another thread does."""
    deadline = time.monotonic() + _DEADLINE_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.005)
