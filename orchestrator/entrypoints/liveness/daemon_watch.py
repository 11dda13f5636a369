"""The daemon's watch over itself: each loop, and the event loop of the links. daemon.py starts it.

A part that hangs can't be ended alone, since it is a thread. So the whole process ends, and the
supervisor starts another one. While all is well the watch sends the daemon's heartbeats; if it
stops as well, the supervisor notices.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from orchestrator.domain.watchdog import Watchdog
from orchestrator.entrypoints.liveness import exits
from orchestrator.entrypoints.liveness.heartbeats import Heart
from orchestrator.loops.loop_supervisor import LoopSupervisor
from orchestrator.slim import structlog

_TICK_S = 1.0
_LATE_S = 5.0

log = structlog.get_logger()


@dataclass(kw_only=True)
class DaemonWatch:
    """Looks at each tick. Ends the process when something hangs."""

    limit_s: float  # of one pass of a loop
    exit: Callable[[int], object] = os._exit  # must not wait for the threads that hang
    loops: LoopSupervisor | None = None  # None until the daemon leads
    links_sign: Callable[[], float] | None = None  # when the links' event loop last ran
    watchdog: Watchdog = field(default_factory=lambda: Watchdog(_LATE_S))

    def start(self) -> None:
        """Watch in a thread, to the end of this process."""
        threading.Thread(target=self._run, name="watch", daemon=True).start()

    def look(self, now: float) -> bool:
        """Whether all is well. If not, ends the process after writing down what hangs, and where.

        `now` is of the monotonic clock.
        """
        self.watchdog.look(now)
        if self.loops is not None:
            for loop in self.loops.find_stuck(self.watchdog, self.limit_s, now):
                silence_s = round(self.watchdog.silence_s(loop.last_sign(now), now), 1)
                log.error("loop_stuck", loop=loop.spec.name, for_s=silence_s, stack=loop.stack())
                self.exit(exits.STUCK)
                return False
        if self.links_sign is not None:
            silence_s = self.watchdog.silence_s(self.links_sign(), now)
            if silence_s > self.limit_s:
                log.error("loop_stuck", loop="the links' event loop", for_s=round(silence_s, 1))
                self.exit(exits.STUCK)
                return False
        return True

    def _run(self) -> None:
        heart, pause = Heart(), threading.Event()
        while self.look(time.monotonic()):
            heart.beat()
            pause.wait(_TICK_S)
