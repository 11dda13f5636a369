"""The order in which sessions are served: by queue, then by rank, then by age."""

from __future__ import annotations

import enum

from orchestrator.domain.sessions.session import Session, SessionState, Tier, Wanted


class Queue(enum.StrEnum):
    """RQ queues, in the order in which workers empty them."""

    CRITICAL = "critical"  # sessions under way or to be destroyed: they hold or free slots
    HIGH = "high"  # new sessions of paying users and operators
    NORMAL = "normal"  # new sessions of visitors
    LOW = "low"  # second looks at sessions under way, in case a nudge was lost


def queue_for(session: Session) -> Queue:
    """The queue for nudges of this session: first what has begun, then by tier."""
    is_new = session.state is SessionState.QUEUED and not session.version
    if session.wanted is Wanted.GONE or not is_new:
        return Queue.CRITICAL
    return Queue.NORMAL if session.tier is Tier.FREE else Queue.HIGH


_RANKS = {Tier.OPERATOR: 0, Tier.PRO: 1, Tier.FREE: 2}
RECOVERY_RANK = -1
"""Of a session whose app has run. It keeps its slot from all newcomers until it runs again, also
while it pauses before that."""


def rank_of(session: Session) -> int:
    """The place of the session's kind in the queue: smaller ranks come first."""
    return RECOVERY_RANK if session.version else _RANKS[session.tier]
