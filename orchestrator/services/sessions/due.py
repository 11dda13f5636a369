"""Nudges the sessions that are due, and names those at which no worker looks in spite of it.

This makes a lost nudge harmless, and workers that are away. Called by the nudge loop.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from orchestrator.domain.ids import SessionId
from orchestrator.domain.sessions.priority import Queue
from orchestrator.domain.sessions.session import Session
from orchestrator.services.deps import Deps
from orchestrator.services.nudges import nudge
from orchestrator.services.pool import claims

_NUDGES_PER_PASS = 100
_PAUSES_S = (0.45, 5.0)  # the first one, a little less than the loop's interval; and the longest
_DOUBLINGS_MAX = 10
# Workers look within milliseconds. When all of them are busy the daemon lends a hand.
_OVERDUE = timedelta(seconds=2)


@dataclass(frozen=True, kw_only=True)
class SecondLook:
    """A nudge that the loop has sent for a session under way."""

    due_at: datetime  # the session's, then: a worker that looks at the session moves it
    since: datetime  # when it was first sent for that due_at
    count: int  # how often in a row it was sent for that due_at
    not_before: datetime  # the next one


@dataclass(kw_only=True)
class RecentNudges:
    """Remembers which sessions the nudge loop has nudged a moment ago.

    Events wake the loop far more often than its interval. When many sessions end at once, each end
    would otherwise nudge all the others again, and a newcomer's nudge would wait behind thousands
    of useless ones. A session at which no worker looks is nudged ever more rarely, and is overdue
    after two seconds.
    """

    looks: dict[SessionId, SecondLook] = field(default_factory=dict)

    def is_next_due(self, session: Session, now: datetime) -> bool:
        """Whether another nudge of this session is of use now."""
        last = self.looks.get(session.id)
        return last is None or last.due_at != session.due_at or last.not_before <= now

    def record(self, session: Session, now: datetime) -> bool:
        """Remember a nudge. Returns whether the session is overdue."""
        last = self.looks.get(session.id)
        if last is None or last.due_at != session.due_at:
            last = SecondLook(due_at=session.due_at, since=now, count=0, not_before=now)
        first_s, longest_s = _PAUSES_S
        pause_s = min(first_s * 2 ** min(last.count, _DOUBLINGS_MAX), longest_s)
        not_before = now + timedelta(seconds=pause_s)
        overdue_at = last.since + _OVERDUE
        if now < overdue_at:
            not_before = min(not_before, overdue_at)
        self.looks[session.id] = replace(last, count=last.count + 1, not_before=not_before)
        return now >= overdue_at

    def forget_all_but(self, sessions: Iterable[Session]) -> None:
        """Forget the sessions that wait for no worker any more."""
        waiting_ids = {session.id for session in sessions}
        self.looks = {key: look for key, look in self.looks.items() if key in waiting_ids}


@dataclass(frozen=True, kw_only=True)
class Pass:
    """What one pass of the nudge loop has done."""

    nudged: int
    overdue: Sequence[SessionId]  # nudged, too, and somebody else should look at them now


def nudge_due_sessions(deps: Deps, recent: RecentNudges | None = None) -> Pass:
    """Nudge the sessions that are due.

    A session in the queue is nudged in every pass in which the pool has room for it. Any other
    session gets a second look: whatever changed has nudged it already, so this one may wait.
    """
    now = deps.clock.now()
    recent = recent or RecentNudges()
    under_way = deps.store.sessions.due(now, limit=_NUDGES_PER_PASS)
    looks = [session for session in under_way if recent.is_next_due(session, now)]
    chosen = claims.choose_waiting(deps.store, now)[:_NUDGES_PER_PASS]
    first = deps.store.sessions.get_many(chosen)
    for session in looks:
        nudge(deps, session, Queue.LOW)
    for session in first:
        nudge(deps, session)
    recent.forget_all_but([*under_way, *first])
    next_due = [session for session in first if recent.is_next_due(session, now)]
    overdue = [session.id for session in (*looks, *next_due) if recent.record(session, now)]
    return Pass(nudged=len(looks) + len(first), overdue=overdue)
