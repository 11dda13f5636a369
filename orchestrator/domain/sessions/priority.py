"""The order in which sessions are served: by queue, then by tier, then by age."""

from __future__ import annotations

import enum
from collections.abc import Mapping

from orchestrator.domain.sessions.session import Session, SessionState, Tier, Wanted


class Queue(enum.StrEnum):
    """RQ queues, in the order in which workers empty them."""

    CRITICAL = "critical"  # sessions under way or to be destroyed: they hold or free slots
    HIGH = "high"  # new sessions of paying users and operators
    NORMAL = "normal"  # new sessions of visitors
    LOW = "low"  # second looks at sessions under way, in case a nudge was lost


def queue_for(session: Session) -> Queue:
    """The queue for nudges of this session: first what has begun, then by tier."""
    if session.wanted is Wanted.GONE or session.state is not SessionState.QUEUED:
        return Queue.CRITICAL
    return Queue.NORMAL if session.tier is Tier.FREE else Queue.HIGH


RANK: Mapping[Tier, int] = {Tier.OPERATOR: 0, Tier.PRO: 1, Tier.FREE: 2}
