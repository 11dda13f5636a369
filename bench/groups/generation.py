"""What we add to the time of the model: apps that it writes, when it answers at once."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench import model, processes, sessions
from bench.measure import Limit, Row, Section, latency, ms, p50
from bench.model import Model
from bench.processes import CpuTime
from tests.e2e.installation import Installation, installed

RUNS = 6
AT_ONCE = 8
KINDS: Mapping[str, str] = {
    "static": "A page about tide pools",
    "Python": "A small python api with fastapi for bird sightings",
    "Node": "A node server that greets in five languages",
}
_MOST_S = {"static": 0.6, "Python": 1.2, "Node": 1.0}
_MOST_AT_ONCE_S = 2.5  # of static ones


def measure() -> Section:
    """Two rows for each kind of app: one at a time, and several at once."""
    with (
        tempfile.TemporaryDirectory() as folder,
        model.serving(Path(folder)) as served,
        installed(SPAWN_SLOTS="24", **served.settings) as spawn,
    ):
        own = {kind: _own_time(spawn, served, prompt) for kind, prompt in KINDS.items()}
        alone: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for _ in range(RUNS):
            for kind, prompt in KINDS.items():
                alone[kind].append(sessions.one(_warm(spawn), prompt=prompt, fresh=True))
        at_once = {kind: _together(spawn, prompt) for kind, prompt in KINDS.items()}
    rows = [_row(kind, alone[kind], own[kind]) for kind in KINDS]
    rows += [_row_at_once(kind, *at_once[kind], own[kind]) for kind in KINDS]
    return Section(
        rows=rows,
        notes=[
            "The times are those from POST to the first 200, less what the model itself takes for"
            " the same requests one after the other, without us."
        ],
    )


def _warm(spawn: Installation) -> Installation:
    sessions.wait_until_warm(spawn)
    return spawn


def _own_time(spawn: Installation, served: Model, prompt: str) -> float:
    """Seconds that the model takes for one conversation of this kind; the median of five."""
    before = len(served.requests())
    sessions.one(_warm(spawn), prompt=prompt, fresh=True)
    requests = served.requests()[before:]
    return p50([served.replay(requests) for _ in range(5)])


def _together(spawn: Installation, prompt: str) -> tuple[list[float], CpuTime]:
    sessions.wait_until_warm(spawn)
    before = processes.cpu_time(spawn)
    made = sessions.together(spawn, AT_ONCE, prompt=prompt, fresh=True)
    used = processes.cpu_time(spawn).since(before)
    sessions.end_all(spawn, made)
    return [each.duration_s for each in made], used


def _row(kind: str, samples: Sequence[float], own_s: float) -> Row:
    added = [sample - own_s for sample in samples]
    most = _MOST_S[kind]
    limit = Limit(text=f"p50 <= {most * 1000:.0f} ms", figure=p50(added), most=most)
    return latency(f"generated {kind} app (the model alone: {ms(own_s)})", added, limit)


def _row_at_once(kind: str, samples: Sequence[float], used: CpuTime, own_s: float) -> Row:
    added = [sample - own_s for sample in samples]
    limits = []
    if kind == "static":
        text = f"p50 <= {_MOST_AT_ONCE_S * 1000:.0f} ms"
        limits.append(Limit(text=text, figure=p50(added), most=_MOST_AT_ONCE_S))
    return latency(
        f"{AT_ONCE} generated {kind} apps at once", added, *limits, cpu=used.each(AT_ONCE)
    )
