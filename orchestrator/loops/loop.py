"""One loop: a named thread that runs a pass on a rhythm, or at once when woken.

Passes never overlap. A pass that raises a Temporary error is repeated with back-off; anything else
it raises is a bug and ends the process, so that its supervisor starts it afresh.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.domain import errors
from orchestrator.slim import structlog

_BACKOFF_MAX_S = 10.0
_DOUBLINGS_MAX = 10  # beyond, the cap holds anyway, and 2**n stops fitting a float

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class LoopSpec:
    """What a loop does, and when."""

    name: str
    every_s: float  # longest time between two passes
    run: Callable[[], str]  # one pass; a summary for the log, "" when nothing was done
    topics: tuple[str, ...] = ()  # events that wake it
    gather_s: float = 0.0  # wait this long after a wake-up, so that a burst is one pass


class Loop:
    """Runs one LoopSpec until stopped."""

    def __init__(self, spec: LoopSpec, on_death: Callable[[BaseException], None]) -> None:
        self.spec = spec
        self._on_death = on_death
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._failures = 0
        self._thread = threading.Thread(target=self._run, name=f"loop-{spec.name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Run a pass now, or right after the one that is running."""
        self._wake.set()

    def stop(self, timeout_s: float) -> bool:
        """Let the present pass end; False when it did not within `timeout_s`."""
        self._stopping.set()
        self._wake.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._wake.clear()
                wait_s = self._pass()
                if self._wake.wait(wait_s) and not self._stopping.is_set():
                    self._stopping.wait(self.spec.gather_s)
        except BaseException as error:  # a task that dies takes the process down
            log.exception("a loop died", loop=self.spec.name)
            self._on_death(error)

    def _pass(self) -> float:
        """One pass; returns seconds until the next."""
        began = time.perf_counter()
        try:
            summary = self.spec.run()
        except errors.StaleWrite:
            return 0.0  # somebody wrote first: look again at once
        except (errors.Temporary, errors.ProxyRejected, errors.NotFound) as error:
            self._failures += 1
            wait_s = _backoff_s(self._failures, self.spec.every_s)
            log.warning(
                "pass failed",
                loop=self.spec.name,
                code=error.code,
                error=str(error),
                again_in_s=round(wait_s, 2),
            )
            return wait_s
        self._failures = 0
        took = time.perf_counter() - began
        if summary:
            log.info("pass", loop=self.spec.name, did=summary, ms=round(took * 1000, 1))
        return self.spec.every_s


def _backoff_s(failures: int, every_s: float) -> float:
    """Full jitter between the rhythm and twice as long for each failure in a row, capped."""
    most = min(_BACKOFF_MAX_S, max(every_s, 0.2) * 2 ** min(failures, _DOUBLINGS_MAX))
    return random.uniform(min(every_s, most), most)  # noqa: S311 - jitter, not a secret
