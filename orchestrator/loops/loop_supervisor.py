"""Runs the daemon's loops, wakes them by event, and stops them in a fixed order.

Called by the daemon once it leads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from orchestrator import ports
from orchestrator.domain.ids import SessionId
from orchestrator.domain.watchdog import Watchdog
from orchestrator.loops.loop import Loop, LoopSpec
from orchestrator.ports import topics
from orchestrator.slim import structlog

_NAME = "daemon"  # among those who listen
_STOP_TIMEOUT_S = 15.0  # per loop

log = structlog.get_logger()


class LoopSupervisor:
    """Starts loops, wakes them by event, and stops them. One per daemon process."""

    def __init__(
        self,
        specs: Sequence[LoopSpec],
        events: ports.Events,
        check_term: Callable[[], None] = lambda: None,
        on_due: Callable[[SessionId], None] | None = None,
        stopping: threading.Event | None = None,
    ) -> None:
        """Before each pass `check_term` is called. It raises errors.TermOver if we must not act.

        `on_due` gets the sessions that need a look and of which no worker will hear. `stopping` is
        set when everything must stop: by us when a loop dies, or by whoever else has it.
        """
        self._events = events
        self._on_due = on_due
        self.stopping = stopping or threading.Event()
        self.error: BaseException | None = None
        self._loops = [Loop(spec, self._on_death, check_term) for spec in specs]
        self._listener = threading.Thread(target=self._listen, name="events", daemon=True)

    def run(self, until_stopped: Callable[[], None]) -> None:
        """Start everything, wait in `until_stopped`, stop everything.

        Raises the error that ended a loop, if one did.
        """
        for loop in self._loops:
            loop.start()
        self._listener.start()
        until_stopped()
        self._stop()
        if self.error is not None:
            raise self.error

    def find_stuck(self, watchdog: Watchdog, limit_s: float, now: float) -> Sequence[Loop]:
        """The loops whose pass takes longer than they may."""
        return [
            loop
            for loop in self._loops
            if watchdog.silence_s(loop.last_sign(now), now) > limit_s * loop.spec.patience
        ]

    def wake(self, topic: str) -> None:
        """Wake the loops of a topic. For events that never leave this process."""
        for loop in self._loops:
            if topic in loop.spec.all_topics:
                loop.wake(at_once=topic in loop.spec.urgent)

    def _stop(self) -> None:
        # 1. The listener, so that no event wakes a loop that has to stop.
        self.stopping.set()
        # 2. The loops in the given order: first those that make sandboxes, then those that clear
        #    them. The publisher is last, because the others wait for its confirmations.
        for loop in self._loops:
            if not loop.stop(_STOP_TIMEOUT_S):
                log.warning("loop_stop_timed_out", loop=loop.spec.name)

    def _listen(self) -> None:
        kinds = {topic for loop in self._loops for topic in loop.spec.all_topics}
        if self._on_due is not None:
            kinds.add(topics.DUE)
        try:
            with self._events.subscribe(_NAME, sorted(kinds)) as events:
                for topic in events:
                    if self.stopping.is_set():
                        return
                    self._hear(topic)
        except BaseException as error:
            log.exception("listener_died")
            self._on_death(error)

    def _hear(self, topic: str) -> None:
        kind, subject = topics.split(topic)
        if kind == topics.DUE and subject and self._on_due is not None:
            self._on_due(SessionId(subject))
        else:
            self.wake(kind)

    def _on_death(self, error: BaseException) -> None:
        self.error = self.error or error
        self.stopping.set()
