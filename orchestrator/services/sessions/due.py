"""Nudging what is due: this makes a lost nudge harmless. Called by the nudge loop."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from orchestrator.domain.ids import SessionId
from orchestrator.domain.sessions.session import SessionState
from orchestrator.services.deps import Deps
from orchestrator.services.nudges import nudge
from orchestrator.services.pool import claims

_NUDGES_PER_PASS = 100
_NOT_AGAIN_WITHIN = timedelta(seconds=0.45)  # a little less than the loop's own rhythm


@dataclass(kw_only=True)
class Rounds:
    """Remembers whom the nudge loop has nudged a moment ago.

    Events wake the loop far more often than its rhythm: where many sessions end at once, each one
    that does would have all the others nudged again, and a newcomer's nudge would wait behind
    thousands that say nothing new.
    """

    nudged_at: dict[SessionId, datetime] = field(default_factory=dict)

    def begin(self, now: datetime) -> None:
        """Forget those for whom it is time again."""
        self.nudged_at = {
            session_id: at
            for session_id, at in self.nudged_at.items()
            if now - at < _NOT_AGAIN_WITHIN
        }


def nudge_due(deps: Deps, rounds: Rounds | None = None) -> int:
    """Nudge every session that is due: all that are under way, and as many of those queued as
    there is room for. Returns how many. Makes lost nudges harmless. Who waits for room is nudged
    whenever there is some; who is under way, once in a while."""
    now = deps.clock.now()
    rounds = rounds or Rounds()
    rounds.begin(now)
    due = deps.store.sessions.due(now, limit=_NUDGES_PER_PASS)
    waiting = [found for found in due if found.state is SessionState.QUEUED]
    under_way = [
        found
        for found in due
        if found.state is not SessionState.QUEUED and found.id not in rounds.nudged_at
    ]
    # One more than there is room for: the count and the claims don't happen at the same instant.
    room = claims.available(deps.store, len(waiting)) if waiting else 0
    heads = waiting[: room + 1]
    sent = [found for found in (*under_way, *heads) if nudge(deps, found)]
    rounds.nudged_at.update((found.id, now) for found in sent)
    return len(sent)
