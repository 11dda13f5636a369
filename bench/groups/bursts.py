"""Bursts: many sessions at the same moment, on a pool with as many warm sandboxes or with fewer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from bench import processes, sessions
from bench.bare import Bare
from bench.measure import Limit, Row, Section, latency, p50, percentile
from bench.processes import CpuTime
from tests.e2e.installation import Installation, installed

_ROUNDS = {10: 3, 30: 1, 100: 1}  # by the size of the burst
_FEW = 20  # warm sandboxes for the largest
SINGLES = 10  # starts one by one, whose CPU time is what those of a burst are compared with


@dataclass(frozen=True, kw_only=True)
class _Burst:
    """One kind of burst."""

    size: int
    warm: int
    ends: bool  # whether each session is ended when it is ready
    rounds: int

    @property
    def name(self) -> str:
        end = "each ended when ready" if self.ends else "each to first 200"
        return f"burst of {self.size} on {self.warm} warm, {end}"


@dataclass
class _Outcome:
    """What the rounds of a burst have shown."""

    burst: _Burst
    durations_s: list[float] = field(default_factory=list)
    used: CpuTime = field(default_factory=lambda: CpuTime(by_kind={}))  # until all were ready


def measure() -> Section:
    """One row for each kind of burst, and for a bare one of each size."""
    rows: list[Row] = []
    notes: list[str] = []
    bare: list[float] = []
    for size, rounds in _ROUNDS.items():
        bursts = [_Burst(size=size, warm=size, ends=ends, rounds=rounds) for ends in (False, True)]
        bare = []
        _measure(size, bursts, bare, rows, notes)
    large = max(_ROUNDS)
    _measure(_FEW, [_Burst(size=large, warm=_FEW, ends=True, rounds=1)], bare, rows, notes)
    return Section(rows=rows, notes=notes)


def _measure(
    warm: int, bursts: Sequence[_Burst], bare: list[float], rows: list[Row], notes: list[str]
) -> None:
    """Run these bursts on one pool, in turn with bare ones of the same size if it has as many warm
    sandboxes. `bare` gets their durations, or has those of an earlier pool."""
    outcomes = [_Outcome(burst=burst) for burst in bursts]
    size = bursts[0].size
    settings = {
        "SPAWN_WARM_TARGET": str(warm),
        "SPAWN_SLOTS": str(size + 30),
        **sessions.MANY,
    }
    with installed(**settings) as spawn:
        single_s = _single_cpu_s(spawn)
        for number in range(max(burst.rounds for burst in bursts)):
            for outcome in outcomes:
                if number < outcome.burst.rounds:
                    _run(spawn, outcome)
            sessions.wait_until_warm(spawn)
            if warm == size:
                bare += Bare(spawn=spawn).together(size)
    if warm == size:
        rows.append(latency(f"{size} bare `docker run` at once", bare, bare=bare))
    for outcome in outcomes:
        rows.append(_row(outcome, bare, single_s))
        parts = outcome.used.parts(len(outcome.durations_s))
        notes.append(f"CPU time of a session, {outcome.burst.name}, ms: {parts}.")


def _single_cpu_s(spawn: Installation) -> float:
    """The CPU time of a start alone, until its app answers."""
    used_s = 0.0
    for _ in range(SINGLES):
        sessions.wait_until_warm(spawn)
        before = processes.cpu_time(spawn)
        made = sessions.make(spawn, template=sessions.STATIC)
        used_s += processes.cpu_time(spawn).since(before).total_s
        sessions.end(spawn, made)
    return used_s / SINGLES


def _run(spawn: Installation, outcome: _Outcome) -> None:
    burst = outcome.burst
    sessions.wait_until_warm(spawn)
    before = processes.cpu_time(spawn)
    made = sessions.together(spawn, burst.size, ends=burst.ends)
    outcome.used = processes.cpu_time(spawn).since(before).and_also(outcome.used)
    outcome.durations_s += [each.duration_s for each in made]
    sessions.end_all(spawn, made)


def _row(outcome: _Outcome, bare: Sequence[float], single_s: float) -> Row:
    burst, samples = outcome.burst, outcome.durations_s
    each_s = outcome.used.total_s / len(samples)
    limits = [Limit(text="p95 < 1 s", figure=percentile(samples, 0.95), most=1.0)]
    if burst.size == 100:
        limits = []
    if burst.ends and burst.size == burst.warm == 100:
        limits = [
            Limit(text="p50 <= 0.8 s", figure=p50(samples), most=0.8),
            Limit(text="p95 <= 1.5 s", figure=percentile(samples, 0.95), most=1.5),
            Limit(text="CPU <= 1.3 of a single start", figure=each_s / single_s, most=1.3),
        ]
    name = f"{burst.name}; a start alone takes {single_s * 1000:.0f} ms of CPU time"
    cpu = outcome.used.each(len(samples))
    return latency(name, samples, *limits, bare=bare, cpu=cpu)
