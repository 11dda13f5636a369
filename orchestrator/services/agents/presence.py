"""Tells whether agents can reach spawn-api at all: spawn-api holds a lease while it listens.

spawn-api renews the lease, and the reconcile loop watches it.

While spawn-api is down no agent can be heard, and their silence is not their fault.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from orchestrator.services.deps import Deps

_LEASE = "api"
_LEASE_S = 10.0
RENEW_S = 3.0


def renew_presence(deps: Deps, process: str) -> None:
    """Renew the lease that says that agents are listened to. One api process is enough.

    `process` names the process, and is new after each start.
    """
    now = deps.clock.now()
    deps.store.leases.hold(_LEASE, process, now + timedelta(seconds=_LEASE_S), now)


@dataclass(kw_only=True)
class ListenerWatch:
    """Watches the lease, and remembers since when it has been held without a break."""

    since: datetime
    holder: str | None = None

    def heard_since(self, deps: Deps) -> datetime:
        """The time since which an agent that works would have been heard."""
        now = deps.clock.now()
        holder = deps.store.leases.holder(_LEASE, now)
        if holder is None or holder != self.holder:
            self.since, self.holder = now, holder
        return self.since
