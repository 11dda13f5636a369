"""How much the daemon does at once of what no user waits for: removals and warm starts.

The passes that begin such work look first whether sessions are arriving. What to make of it is said
in domain.pool.refill.
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

    def look(self) -> None:
        """Look whether sessions are arriving now."""
        is_busy = self._deps.store.sessions.count_in(_ARRIVING) > 0
        self._since = (self._since or self._deps.clock.now()) if is_busy else None

    @property
    def arriving_s(self) -> float | None:
        """For how long sessions have been arriving without a gap; None: none did at the last
        look."""
        if self._since is None:
            return None
        return (self._deps.clock.now() - self._since).total_seconds()

    def at_once(self, most: int) -> int:
        """How many calls that nobody waits for one host may have now, of `most` in quiet times."""
        return calls_at_once(most, self.arriving_s)
