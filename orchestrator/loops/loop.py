"""A loop: a named thread that runs a pass at intervals, or at once when it is woken.

LoopSupervisor runs the loops. Passes of one loop never overlap. A pass that raises a temporary
error is repeated with backoff. Any other error is a bug: it ends the process, and the process
supervisor starts a new one.
"""

from __future__ import annotations

import random
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.domain import errors
from orchestrator.loops.rhythm import Rhythm
from orchestrator.slim import structlog

_BACKOFF_MAX_S = 10.0
_TERM_OVER_WAIT_S = 1.0
_DOUBLINGS_MAX = 10  # the cap applies long before; without it 2**n would overflow a float

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class LoopSpec:
    """What a loop does, and when."""

    name: str
    every_s: float  # longest time between two passes
    run: Callable[[], str]  # one pass; returns a summary for the log, "" if it did nothing
    rest_s: float | None = None  # the same while nothing happens; None: no other
    topics: tuple[str, ...] = ()  # topics of the events that wake the loop
    urgent: tuple[str, ...] = ()  # topics that wake it, too, without `gather_s`
    gather_s: float = 0.0  # wait this long after a wake-up, so that a burst causes one pass
    patience: float = 1.0  # a pass may take so many times the limit of all loops

    @property
    def all_topics(self) -> frozenset[str]:
        return frozenset((*self.topics, *self.urgent))


class Loop:
    """Runs one LoopSpec until stopped."""

    def __init__(
        self,
        spec: LoopSpec,
        on_death: Callable[[BaseException], None],
        check_term: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.spec = spec
        self._on_death = on_death
        self._check_term = check_term
        self._wake = threading.Event()
        self._hurry = threading.Event()
        self._stopping = threading.Event()
        self._failures = 0
        self._clock = clock
        self._rhythm = Rhythm(spec.every_s, spec.rest_s, clock())
        self._pass_began_at: float | None = None  # of the monotonic clock; None between passes
        self._thread = threading.Thread(target=self._run, name=f"loop-{spec.name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self, *, at_once: bool = False) -> None:
        """Run a pass once other wake-ups are gathered, or `at_once`; right after the pass that is
        running, if one is."""
        if at_once:
            self._hurry.set()
        self._wake.set()

    def last_sign(self, now: float) -> float:
        """When it last finished something: now, unless a pass is running."""
        began_at = self._pass_began_at
        return now if began_at is None else began_at

    def stack(self) -> str:
        """Where its thread is at the moment, for people."""
        frame = sys._current_frames().get(self._thread.ident or 0)  # noqa: SLF001 - documented
        return "".join(traceback.format_stack(frame)) if frame else ""

    def stop(self, timeout_s: float) -> bool:
        """Stop after the running pass. False if it does not end within `timeout_s`."""
        self._stopping.set()
        self._hurry.set()
        self._wake.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while True:
                self._hurry.clear()
                self._wake.clear()
                if self._stopping.is_set():  # after them: a stop sets it first
                    return
                self._pass_began_at = self._clock()
                wait_s = self._pass()
                self._pass_began_at = None
                if self._wake.wait(wait_s):
                    self._rhythm.note(self._clock())
                    self._hurry.wait(self.spec.gather_s)
        except BaseException as error:  # a task that dies takes the process down
            log.exception("loop_died", loop=self.spec.name)
            self._on_death(error)

    def _pass(self) -> float:
        """Run one pass. Returns the seconds until the next one."""
        started_at = time.perf_counter()
        try:
            self._check_term()
            summary = self.spec.run()
        except errors.TermOver as error:
            # The daemon's main thread ends the process. Until then nothing more is done.
            log.error("pass_refused", loop=self.spec.name, error=str(error))
            return _TERM_OVER_WAIT_S
        except errors.StaleWrite:
            return 0.0  # another process wrote first: run the pass again at once
        except (errors.Temporary, errors.ProxyRejected, errors.NotFound) as error:
            self._failures += 1
            self._rhythm.note(self._clock())
            wait_s = _backoff_s(self._failures, self.spec.every_s)
            log.warning(
                "pass_failed",
                loop=self.spec.name,
                code=error.code,
                error=str(error),
                retry_in_s=round(wait_s, 2),
            )
            return wait_s
        self._failures = 0
        took_s = time.perf_counter() - started_at
        if summary:
            self._rhythm.note(self._clock())
            log.info("pass_done", loop=self.spec.name, summary=summary, ms=round(took_s * 1000, 1))
        return self._rhythm.wait_s(self._clock())


def _backoff_s(failures: int, every_s: float) -> float:
    """A random time between the interval and a limit that doubles with each failure in a row."""
    limit_s = min(_BACKOFF_MAX_S, max(every_s, 0.2) * 2 ** min(failures, _DOUBLINGS_MAX))
    return random.uniform(min(every_s, limit_s), limit_s)  # noqa: S311 - jitter, not a secret
