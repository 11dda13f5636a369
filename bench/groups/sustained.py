"""Starts without a pause: several clients start and end sessions, in turn with as many that run and
remove bare containers.

A client of either kind waits until nothing is left of its last one before it starts the next: the
rates count the same work.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from bench import processes, sessions
from bench.bare import Bare
from bench.measure import Limit, Row, Section, latency, p50
from bench.processes import CpuTime
from tests.e2e.installation import Installation, installed

ROUNDS = 2  # of each kind, in turn
_STARTS = {1: 10, 4: 20, 10: 40, 30: 60}  # in a round, by the number of clients
_CPU_MOST_S = 0.12


@dataclass
class _Block:
    """What the rounds of one kind have shown."""

    durations_s: list[float] = field(default_factory=list)
    took_s: float = 0.0

    def run(self, clients: int, count: int, cycle: Callable[[], float]) -> None:
        """Go through `count` cycles, with so many clients at once."""
        started_at = time.perf_counter()
        with ThreadPoolExecutor(clients) as pool:
            self.durations_s += pool.map(lambda _: cycle(), range(count))
        self.took_s += time.perf_counter() - started_at

    @property
    def rate(self) -> float:
        return len(self.durations_s) / self.took_s


def measure() -> Section:
    """Two rows for each number of clients."""
    rows: list[Row] = []
    notes = []
    with installed(SPAWN_SLOTS="70", **sessions.MANY) as spawn:
        docker = Bare(spawn=spawn)
        sessions.one(spawn)
        for clients, count in _STARTS.items():
            bare, ours, used = _measure(spawn, docker, clients, count)
            rows += _rows(clients, bare, ours, used)
            parts = used.parts(len(ours.durations_s))
            notes.append(f"CPU time of a session at {clients} at once, ms: {parts}.")
    return Section(rows=rows, notes=notes)


def _measure(
    spawn: Installation, docker: Bare, clients: int, count: int
) -> tuple[_Block, _Block, CpuTime]:
    bare, ours = _Block(), _Block()
    used = CpuTime(by_kind={})
    for _ in range(ROUNDS):
        sessions.wait_until_warm(spawn)
        bare.run(clients, count, docker.start)
        before = processes.cpu_time(spawn)
        ours.run(clients, count, lambda: _cycle(spawn))
        sessions.wait_until_warm(spawn)
        used = processes.cpu_time(spawn).since(before).and_also(used)
    return bare, ours, used


def _cycle(spawn: Installation) -> float:
    made = sessions.make(spawn, template=sessions.STATIC)
    sessions.end(spawn, made)
    sessions.await_end(spawn, made)
    return made.duration_s


def _rows(clients: int, bare: _Block, ours: _Block, used: CpuTime) -> Sequence[Row]:
    limits = []
    if clients >= 10:
        rate, start = ours.rate / bare.rate, p50(ours.durations_s) / p50(bare.durations_s)
        cpu_s = used.total_s / len(ours.durations_s)
        limits = [
            Limit(text="rate >= 0.85 of bare", figure=rate, least=0.85),
            Limit(text="p50 <= 1.3 of bare", figure=start, most=1.3),
            Limit(text=f"CPU <= {_CPU_MOST_S * 1000:.0f} ms", figure=cpu_s, most=_CPU_MOST_S),
        ]
    return [
        latency(
            f"{clients} at once: bare `docker run`, then `docker rm`",
            bare.durations_s,
            bare=bare.durations_s,
            rate=f"{bare.rate:.2f}/s",
        ),
        latency(
            f"{clients} at once: sessions, then their end",
            ours.durations_s,
            *limits,
            bare=bare.durations_s,
            rate=f"{ours.rate:.2f}/s",
            cpu=used.each(len(ours.durations_s)),
        ),
    ]
