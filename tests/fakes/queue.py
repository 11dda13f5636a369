"""Work queues that tests can break: ports.NudgeQueue, in memory."""

from __future__ import annotations

from collections import Counter

from orchestrator.domain import errors
from orchestrator.domain.ids import SessionId
from orchestrator.domain.sessions.priority import Queue


class QueueInMemory:
    """Records every nudge."""

    def __init__(self) -> None:
        self.nudges: list[tuple[SessionId, Queue]] = []

    def nudge(self, session_id: SessionId, queue: Queue) -> None:
        self.nudges.append((session_id, queue))

    def depth(self) -> dict[Queue, int]:
        return dict(Counter(queue for _, queue in self.nudges))

    @property
    def nudged(self) -> list[SessionId]:
        return [session_id for session_id, _ in self.nudges]


class QueueThatIsAway(QueueInMemory):
    """Redis does not answer: no worker hears of anything."""

    def nudge(self, session_id: SessionId, queue: Queue) -> None:
        pass

    def depth(self) -> dict[Queue, int]:
        raise errors.QueueUnavailable("Redis does not answer")
