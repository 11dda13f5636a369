"""Warm starts of each template, in turn with a bare `docker run` of the same app.

Those that run on an interpreter are started twice: from a pool that was refilled just now, and from
one at rest, whose sandboxes have an interpreter ready.
"""

from __future__ import annotations

from bench import interpreters, sessions
from bench.bare import Bare, template
from bench.measure import Limit, Row, Section, latency, p50, percentile
from tests.e2e.installation import Installation, installed

RUNS = 8
BARE_RUNS = 4
MANY = "kanban"  # its 99th percentile has a target, so that it needs more starts
MANY_RUNS = 200
_STATIC = ("kanban", "todo", "landing")
_INTERPRETED = ("notes", "poll", "shortener")
_TEMPLATES = (*_STATIC, *_INTERPRETED)
_MOST_S = {"kanban": 0.04, "notes": 0.35, "poll": 0.2, "shortener": 0.2}


def measure() -> Section:
    """One row for each template, and one for many starts of one of them."""
    warm: dict[str, list[float]] = {name: [] for name in _TEMPLATES}
    bare: dict[str, list[float]] = {name: [] for name in _TEMPLATES}
    rested: dict[str, list[float]] = {name: [] for name in _INTERPRETED}
    with installed(SPAWN_STARTS_PER_ADDRESS="1000000") as spawn:
        docker = Bare(spawn=spawn)
        for name in _TEMPLATES:
            _start(spawn, name)
        for number in range(RUNS):
            for name in _TEMPLATES:
                warm[name].append(_start(spawn, name))
                if number % (RUNS // BARE_RUNS) == 0:
                    bare[name].append(docker.start(template(name)))
            for name in _INTERPRETED:
                sessions.wait_until_warm(spawn)
                interpreters.wait_until_ready(spawn)
                rested[name].append(_start(spawn, name))
        many = [_start(spawn, MANY) for _ in range(MANY_RUNS)]
    return Section(
        rows=[
            *(_row(name, warm[name], bare[name]) for name in _STATIC),
            *(
                latency(f"warm `{name}`, the pool just refilled", warm[name], bare=bare[name])
                for name in _INTERPRETED
            ),
            *(_row(name, rested[name], bare[name], "the pool at rest") for name in _INTERPRETED),
            latency(
                f"`{MANY}` {MANY_RUNS} times, p99 {percentile(many, 0.99) * 1000:.0f} ms",
                many,
                Limit(text="p50 <= 40 ms", figure=p50(many) * 1000, most=40),
                Limit(text="p99 <= 100 ms", figure=percentile(many, 0.99) * 1000, most=100),
                bare=bare[MANY],
            ),
        ],
        notes=["Bare: `docker run` of the same app, its start as the template has it."],
    )


def _start(spawn: Installation, name: str) -> float:
    sessions.wait_until_warm(spawn)
    return sessions.one(spawn, template=name)


def _row(name: str, warm: list[float], bare: list[float], how: str = "POST to first 200") -> Row:
    limits = []
    if name in _MOST_S:
        most = _MOST_S[name]
        limits.append(Limit(text=f"p50 <= {most * 1000:.0f} ms", figure=p50(warm), most=most))
    return latency(f"warm `{name}`, {how}", warm, *limits, bare=bare)
