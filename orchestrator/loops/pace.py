"""How much the daemon does at once of what no user waits for: removals and warm starts.

Who is arriving, and what the pool has left, is read once in a pass, and only if there is such work.
What to make of it is said in domain.pool.refill.
"""

from __future__ import annotations

from datetime import datetime

from orchestrator.domain.pool.refill import EMPTY, Arrivals, Stock, calls_at_once
from orchestrator.domain.sessions.session import SessionState
from orchestrator.services.deps import Deps
from orchestrator.services.pool import refill

# GENERATING is not counted: while Claude writes, the machine has nothing to do.
_ARRIVING = (SessionState.PROVISIONING, SessionState.DEPLOYING)


class Pace:
    """Remembers since when sessions have been arriving. Threads may share it."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        self._since: datetime | None = None
        self._newest: datetime | None = None
        self._is_known = False
        self._stock: Stock | None = None

    def begin_pass(self) -> None:
        """What was read in an earlier pass doesn't count any more."""
        self._is_known = False
        self._stock = None

    @property
    def arrivals(self) -> Arrivals | None:
        """The sessions that are arriving; None: none are."""
        now = self._deps.clock.now()
        if not self._is_known:
            self._newest = self._deps.store.sessions.newest_in(_ARRIVING)
            self._since = None if self._newest is None else self._since or now
            self._is_known = True
        since, newest = self._since, self._newest
        if since is None or newest is None:
            return None
        return Arrivals(
            lasting_s=(now - since).total_seconds(), newest_s=(now - newest).total_seconds()
        )

    def at_once(self, most: int) -> int:
        """How many calls that nobody waits for one host may have now, of `most` in quiet times."""
        arrivals = self.arrivals
        if arrivals is None or not arrivals.depends_on_stock:
            return calls_at_once(most, arrivals, EMPTY)
        stock = self._stock = self._stock or refill.measure_stock(self._deps)
        return calls_at_once(most, arrivals, stock)
