"""Runs the daemon's loops: leadership first, then the loops, then a written order of stopping."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from orchestrator import ports
from orchestrator.loops.loop import Loop, LoopSpec
from orchestrator.slim import structlog

_STOP_LOOP_S = 15.0

log = structlog.get_logger()


class LoopSupervisor:
    """Starts loops, wakes them by event, and stops them. One per daemon process."""

    def __init__(self, specs: Sequence[LoopSpec], events: ports.Events) -> None:
        self._events = events
        self.stopping = threading.Event()
        self.died: BaseException | None = None
        self._loops = [Loop(spec, self._on_death) for spec in specs]
        self._listener = threading.Thread(target=self._listen, name="events", daemon=True)

    def run(self, until_stopped: Callable[[], None]) -> None:
        """Start everything, wait in `until_stopped`, stop everything. Raises what killed a loop."""
        for loop in self._loops:
            loop.start()
        self._listener.start()
        until_stopped()
        self._stop()
        if self.died is not None:
            raise self.died

    def wake(self, topic: str) -> None:
        """The same as an event of that topic, for news that never leave this process."""
        for loop in self._loops:
            if topic in loop.spec.topics:
                loop.wake()

    def _stop(self) -> None:
        # 1. The listener, so that nothing wakes a loop that is to end.
        self.stopping.set()
        # 2. The loops in the order in which they were given: makers before clearers, and the
        #    publisher last, since the others wait for its confirmations.
        for loop in self._loops:
            if not loop.stop(_STOP_LOOP_S):
                log.warning("a loop did not stop in time", loop=loop.spec.name)

    def _listen(self) -> None:
        topics = sorted({topic for loop in self._loops for topic in loop.spec.topics})
        try:
            with self._events.subscribe(topics) as news:
                for topic in news:
                    if self.stopping.is_set():
                        return
                    self.wake(topic)
        except BaseException as error:
            log.exception("the listener died")
            self._on_death(error)

    def _on_death(self, error: BaseException) -> None:
        self.died = self.died or error
        self.stopping.set()
