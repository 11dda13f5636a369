"""Cold starts: sessions for which no sandbox is warm, in turn with bare `docker run`."""

from __future__ import annotations

from bench import sessions
from bench.bare import Bare
from bench.measure import Limit, Section, latency, p50
from tests.e2e.installation import installed

RUNS = 20


def measure() -> Section:
    """Bare and cold starts."""
    bare, cold = [], []
    with installed(SPAWN_WARM_TARGET="0") as spawn:
        docker = Bare(spawn=spawn)
        docker.start()
        sessions.one(spawn)
        for _ in range(RUNS):
            sessions.wait_until_warm(spawn)
            bare.append(docker.start())
            cold.append(sessions.one(spawn))
    ratio = p50(cold) / p50(bare)
    limit = Limit(text="p50 <= 1.15 of bare", figure=ratio, most=1.15)
    return Section(
        rows=[
            latency("bare `docker run`, same image and flags, to first 200", bare, bare=bare),
            latency("cold session (warm target 0), POST to first 200", cold, limit, bare=bare),
        ]
    )
