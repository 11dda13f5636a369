"""Whether the agents can reach us at all. Kept by spawn-api, asked by the reconcile loop.

An agent that isn't heard is silent only if somebody listens: while spawn-api is down, every agent
is unheard, and that is our fault.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from orchestrator.services.deps import Deps

_LEASE = "api"
_LEASE_S = 10.0
RENEW_S = 3.0


def listening(deps: Deps, process: str) -> None:
    """Say that this api process listens. Of several, one is enough. `process` is its own name for
    this run of it."""
    now = deps.clock.now()
    deps.store.leases.hold(_LEASE, process, now + timedelta(seconds=_LEASE_S), now)


@dataclass(kw_only=True)
class Ears:
    """Remembers since when somebody has listened without a break."""

    since: datetime
    holder: str | None = None

    def heard_since(self, deps: Deps) -> datetime:
        """The earliest time from which an agent's silence means something."""
        now = deps.clock.now()
        holder = deps.store.leases.holder(_LEASE, now)
        if holder is None or holder != self.holder:
            self.since, self.holder = now, holder
        return self.since
