"""Peers: other programs that start an app in a container on this machine, in turn with us.

All start the same small app from the same image under the same limits, and are timed from the
request to its first 200.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from bench import sessions
from bench.bare import Bare, Command
from bench.measure import Row, Section, latency, p50
from bench.peers import jupyterhub, swarm
from bench.peers.peer import APP, Peer, Unavailable
from tests.e2e.installation import Installation, installed

RUNS = 8
AT_ONCE = 10
_BARE = "bare `docker run`"
_WARM, _COLD = "**SpawnAI**, warm", "**SpawnAI**, cold"


def measure() -> Section:
    """A row for each peer that can be had here and for us, alone and with several at once."""
    alone: dict[str, list[float]] = {}
    at_once: dict[str, list[float]] = {}
    with contextlib.ExitStack() as stack:
        peers, notes = run_peers(stack, (swarm, jupyterhub))
        warm = stack.enter_context(installed(SPAWN_WARM_TARGET=str(AT_ONCE), SPAWN_SLOTS="40"))
        cold = stack.enter_context(installed(SPAWN_WARM_TARGET="0", SPAWN_SLOTS="40"))
        app = Command(argv=APP)
        starts: dict[str, Callable[[], float]] = {
            _BARE: lambda: Bare(spawn=warm).start(app),
            _COLD: lambda: _session(cold),
            _WARM: lambda: _session(warm),
        }
        starts.update(peers)
        for name, start in starts.items():
            start()
            alone[name], at_once[name] = [], []
        for _ in range(RUNS):
            for name, start in starts.items():
                _rest(warm, cold)
                alone[name].append(start())
        for name, start in starts.items():
            _rest(warm, cold)
            with ThreadPoolExecutor(AT_ONCE) as clients:
                at_once[name] += clients.map(lambda _, start=start: start(), range(AT_ONCE))
    return Section(
        rows=[*_rows("one at a time", alone), *_rows(f"{AT_ONCE} at once", at_once)], notes=notes
    )


def run_peers(
    stack: contextlib.ExitStack, modules: Sequence[Any]
) -> tuple[dict[str, Callable[[], float]], list[str]]:
    """Run the peers of these modules until the stack ends. Returns their starts, and why the others
    can't be had."""
    starts: dict[str, Callable[[], float]] = {}
    notes = []
    for module in modules:
        try:
            peer: Peer = stack.enter_context(module.running())
        except Unavailable as error:
            notes.append(f"{module.NAME} is left out: {error}.")
        else:
            starts[module.NAME] = peer.start
    return starts, notes


def _session(spawn: Installation) -> float:
    return sessions.one(spawn, template=sessions.STATIC)


def _rest(*spawns: Installation) -> None:
    for spawn in spawns:
        sessions.wait_until_warm(spawn)


def _rows(how: str, samples: dict[str, list[float]]) -> Sequence[Row]:
    """The fastest first, each with how it compares with our warm start."""
    ours = p50(samples[_WARM])
    rows = []
    for name in sorted(samples, key=lambda name: p50(samples[name])):
        times = p50(samples[name]) / ours
        lead = "" if name == _WARM else f"; {times:.1f} times our warm start"
        rows.append(latency(f"{name}, {how}{lead}", samples[name], bare=samples[_BARE]))
    return rows
