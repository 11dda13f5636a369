"""Nudges the sessions that are due. This makes a lost nudge harmless. Called by the nudge loop."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from orchestrator.domain.ids import SessionId
from orchestrator.domain.sessions.priority import Queue
from orchestrator.domain.sessions.session import Session, SessionState
from orchestrator.services.deps import Deps
from orchestrator.services.nudges import nudge
from orchestrator.services.pool import claims

_NUDGES_PER_PASS = 100
_PAUSES_S = (0.45, 5.0)  # the first one, a little less than the loop's interval; and the longest
_DOUBLINGS_MAX = 10


@dataclass(frozen=True, kw_only=True)
class SecondLook:
    """A nudge that the loop has sent for a session under way."""

    due_at: datetime  # the session's, then: a worker that looks at the session moves it
    count: int  # how often in a row it was sent for that due_at
    not_before: datetime  # the next one


@dataclass(kw_only=True)
class RecentNudges:
    """Remembers which sessions the nudge loop has nudged a moment ago.

    Events wake the loop far more often than its interval. When many sessions end at once, each end
    would otherwise nudge all the others again, and a newcomer's nudge would wait behind thousands
    of useless ones. A session at which no worker looks is nudged ever more rarely.
    """

    looks: dict[SessionId, SecondLook] = field(default_factory=dict)

    def is_next_due(self, session: Session, now: datetime) -> bool:
        """Whether another nudge of this session is of use now."""
        last = self.looks.get(session.id)
        return last is None or last.due_at != session.due_at or last.not_before <= now

    def record(self, session: Session, now: datetime) -> None:
        last = self.looks.get(session.id)
        count = last.count + 1 if last is not None and last.due_at == session.due_at else 1
        first_s, longest_s = _PAUSES_S
        pause_s = min(first_s * 2 ** min(count - 1, _DOUBLINGS_MAX), longest_s)
        self.looks[session.id] = SecondLook(
            due_at=session.due_at, count=count, not_before=now + timedelta(seconds=pause_s)
        )

    def forget_all_but(self, sessions: Iterable[Session]) -> None:
        """Forget the sessions that aren't due any more."""
        due_ids = {session.id for session in sessions}
        self.looks = {key: look for key, look in self.looks.items() if key in due_ids}


def nudge_due_sessions(deps: Deps, recent: RecentNudges | None = None) -> int:
    """Nudge the sessions that are due, and return how many were nudged.

    A QUEUED session is nudged in every pass in which the pool has room for it. Any other session
    gets a second look: whatever changed has nudged it already, so this one may wait.
    """
    now = deps.clock.now()
    recent = recent or RecentNudges()
    due = deps.store.sessions.due(now, limit=_NUDGES_PER_PASS)
    recent.forget_all_but(due)
    waiting = [session for session in due if session.state is SessionState.QUEUED]
    in_progress = [
        session
        for session in due
        if session.state is not SessionState.QUEUED and recent.is_next_due(session, now)
    ]
    # One more than there is room for: a slot may become free between the count and the claim.
    room = claims.count_available(deps.store, len(waiting)) if waiting else 0
    first = waiting[: room + 1]
    looks = [session for session in in_progress if nudge(deps, session, Queue.LOW)]
    for session in looks:
        recent.record(session, now)
    return len(looks) + sum(nudge(deps, session) for session in first)
