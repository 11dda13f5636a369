"""Looks at sessions where their news come in: in the processes of the API and of the agents.

A nudge through Redis costs two processes more time than a look at a session that is on its way to
a warm sandbox. So a process that has a hand free takes the look itself, and leaves what is more to
the workers.
"""

from __future__ import annotations

from dataclasses import replace

from orchestrator import ports
from orchestrator.domain.ids import SessionId
from orchestrator.domain.sessions.priority import Queue
from orchestrator.loops.stand_in import StandIn
from orchestrator.services.deps import Deps
from orchestrator.services.sessions.looks import look

_HANDS = 1  # the process has other work, and workers have other processors


class NearLooks:
    """ports.NudgeQueue of one process, before the queue of all."""

    def __init__(self, far: ports.NudgeQueue, near: StandIn) -> None:
        self._far = far
        self._near = near

    def nudge(self, session_id: SessionId, queue: Queue) -> None:
        if not self._near.offer(session_id):
            self._far.nudge(session_id, queue)

    def depth(self) -> dict[Queue, int]:
        return self._far.depth()

    def stop(self) -> None:
        """Wait for the look that runs. All others, and later nudges, go to the workers."""
        for session_id in self._near.stop():
            self._far.nudge(session_id, Queue.CRITICAL)


def taking_looks(deps: Deps) -> tuple[Deps, NearLooks]:
    """These deps with a queue that takes looks itself, and that queue. Stop it at the end."""
    queue = NearLooks(deps.queue, StandIn(lambda session_id: look(near, session_id), hands=_HANDS))
    near = replace(deps, queue=queue)
    return near, queue
