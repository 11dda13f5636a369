"""How much the daemon does at once of what no user waits for: removals and warm starts.

Whether sessions are arriving is read once in a pass, and only if there is such work. What to make
of it is said in domain.pool.refill.
"""

from __future__ import annotations

from datetime import datetime

from orchestrator.domain.pool.refill import calls_at_once
from orchestrator.domain.sessions.session import SessionState
from orchestrator.services.deps import Deps

# GENERATING is not counted: while Claude writes, the machine has nothing to do.
_ARRIVING = (SessionState.PROVISIONING, SessionState.DEPLOYING)


class Pace:
    """Remembers since when sessions have been arriving. Threads may share it."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        self._since: datetime | None = None
        self._is_known = False

    def begin_pass(self) -> None:
        """What was read in an earlier pass doesn't count any more."""
        self._is_known = False

    @property
    def arriving_s(self) -> float | None:
        """For how long sessions have been arriving without a gap; None: none are."""
        if not self._is_known:
            is_busy = self._deps.store.sessions.count_in(_ARRIVING) > 0
            self._since = (self._since or self._deps.clock.now()) if is_busy else None
            self._is_known = True
        since = self._since
        return None if since is None else (self._deps.clock.now() - since).total_seconds()

    def at_once(self, most: int) -> int:
        """How many calls that nobody waits for one host may have now, of `most` in quiet times."""
        return calls_at_once(most, self.arriving_s)
