"""The time that SSH adds to a warm claim: a session on this machine's engine, and one over SSH.

Both installations run at once and take turns, so that the machine's load affects both alike.
"""

from __future__ import annotations

from bench import fleet, sessions
from bench.measure import Limit, Section, latency, ms, p50
from tests.e2e.installation import installed

WARM_UP = 3
RUNS = 20


def measure() -> Section:
    """Sessions on three hosts over SSH, in turn with sessions on the local engine."""
    local: list[float] = []
    remote: list[float] = []
    with installed() as local_spawn, fleet.installed_on_a_fleet() as remote_spawn:
        for _ in range(WARM_UP + RUNS):
            for spawn, durations in ((local_spawn, local), (remote_spawn, remote)):
                sessions.wait_until_warm(spawn)
                durations.append(sessions.one(spawn))
    local, remote = local[WARM_UP:], remote[WARM_UP:]
    limit = Limit(text="p50 <= 1.5 of local", figure=p50(remote) / p50(local), most=1.5)
    name = f"warm session on hosts over SSH (in turn with local: {ms(p50(local))})"
    return Section(rows=[latency(name, remote, limit, bare=local)])
