"""Nudges the sessions that are due. This makes a lost nudge harmless. Called by the nudge loop."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from orchestrator.domain.ids import SessionId
from orchestrator.domain.sessions.session import SessionState
from orchestrator.services.deps import Deps
from orchestrator.services.nudges import nudge
from orchestrator.services.pool import claims

_NUDGES_PER_PASS = 100
_REPEAT_AFTER = timedelta(seconds=0.45)  # a little less than the loop's interval


@dataclass(kw_only=True)
class RecentNudges:
    """Remembers which sessions the nudge loop has nudged a moment ago.

    Events wake the loop far more often than its interval. When many sessions end at once, each end
    would otherwise nudge all the others again, and a newcomer's nudge would wait behind thousands
    of useless ones.
    """

    nudged_at: dict[SessionId, datetime] = field(default_factory=dict)

    def forget_old(self, now: datetime) -> None:
        """Forget the nudges that may be repeated now."""
        self.nudged_at = {
            session_id: nudged_at
            for session_id, nudged_at in self.nudged_at.items()
            if now - nudged_at < _REPEAT_AFTER
        }


def nudge_due_sessions(deps: Deps, recent: RecentNudges | None = None) -> int:
    """Nudge the sessions that are due, and return how many were nudged.

    A QUEUED session is nudged in every pass in which the pool has room for it. Any other session
    is nudged once per interval.
    """
    now = deps.clock.now()
    recent = recent or RecentNudges()
    recent.forget_old(now)
    due = deps.store.sessions.due(now, limit=_NUDGES_PER_PASS)
    waiting = [session for session in due if session.state is SessionState.QUEUED]
    in_progress = [
        session
        for session in due
        if session.state is not SessionState.QUEUED and session.id not in recent.nudged_at
    ]
    # One more than there is room for: a slot may become free between the count and the claim.
    room = claims.count_available(deps.store, len(waiting)) if waiting else 0
    first = waiting[: room + 1]
    nudged = [session for session in (*in_progress, *first) if nudge(deps, session)]
    recent.nudged_at.update((session.id, now) for session in nudged)
    return len(nudged)
