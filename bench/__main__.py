"""`make bench`: run all measurements, print the table, and write bench/results.md."""

from __future__ import annotations

import os
import platform
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import docker

from bench import agents, fleet, gateway, generation, links, load
from bench.measure import Row, ms, percentile, table
from tests.e2e.installation import installed

BARE_RUNS = 20
WARM_RUNS = 30
COLD_RUNS = 15
BURST = 10
BURST_ROUNDS = 5
STORED = 1000

RESULTS = Path(__file__).parent / "results.md"


def main() -> None:
    """Measure, print, write. Exits with 1 if a target is missed."""
    started_at = time.perf_counter()
    bare, cold = _bare_and_cold()
    warm, polls, memory = _warm()
    bursts = _burst()
    generated = generation.rows()
    direct, through = gateway.first_bytes()
    local, remote = fleet.warm_sessions()
    polls_of_agents = agents.open_polls()
    base = percentile(bare, 0.5)
    rows = [
        _latency("bare `docker run`, same image and flags, to first 200", bare, base, "", None),
        _latency("warm session, POST to first 200", warm, base, "p50 <= 0.35 of bare", 0.35),
        _latency("cold session (warm target 0)", cold, base, "p50 <= 1.5 of bare", 1.5),
        _bursts(bursts, base),
        *generated,
        Row(
            name=f"`/api/status`, {STORED} sessions, through nginx",
            p50=f"{polls:.0f}/s",
            p95="",
            ratio="",
            target=">= 1500/s",
            met=polls >= 1500,
        ),
        _gateway(direct, through),
        _over_ssh(local, remote),
        Row(
            name="control plane at rest, PSS of all processes",
            p50=f"{sum(memory.values()):.0f} MB",
            p95="",
            ratio="",
            target="< 300 MB",
            met=sum(memory.values()) < 300,
        ),
        polls_of_agents.row(),
    ]
    text = _report(rows, memory, time.perf_counter() - started_at)
    RESULTS.write_text(text)
    print(text)
    sys.exit(0 if all(row.met is not False for row in rows) else 1)


def _over_ssh(local: list[float], remote: list[float]) -> Row:
    ratio = percentile(remote, 0.5) / percentile(local, 0.5)
    return Row(
        name=f"warm session on hosts over SSH (in turn with local: {ms(percentile(local, 0.5))})",
        p50=ms(percentile(remote, 0.5)),
        p95=ms(percentile(remote, 0.95)),
        ratio=f"{ratio:.2f} of local",
        target="p50 <= 1.5 of local",
        met=ratio <= 1.5,
    )


def _bare_and_cold() -> tuple[list[float], list[float]]:
    """Measure both kinds of cold start in turn, so that the machine's load affects both alike."""
    bare, cold = [], []
    with installed(SPAWN_WARM_TARGET="0") as spawn:
        flags = links.sandbox_flags(spawn.state_dir / "agent", f"spawnai-{spawn.instance}")
        links.bare_run(flags)
        links.session(spawn)
        links.wait_until_warm(spawn)
        for number in range(max(BARE_RUNS, COLD_RUNS)):
            if number < BARE_RUNS:
                bare.append(links.bare_run(flags))
            if number < COLD_RUNS:
                cold.append(links.session(spawn))
                links.wait_until_warm(spawn)
    return bare, cold


def _warm() -> tuple[list[float], float, dict[str, float]]:
    # The load comes from one address: this is about what we carry, not about what one may ask.
    with installed(SPAWN_REQUESTS_PER_ADDRESS="1000000") as spawn:
        links.wait_until_warm(spawn)
        memory = load.memory_mb(spawn)
        links.session(spawn)
        warm = []
        for _ in range(WARM_RUNS):
            links.wait_until_warm(spawn)
            warm.append(links.session(spawn))
        cookie, stored = load.fill(spawn, STORED)
        links.wait_until_warm(spawn)
        return warm, load.status_per_second(spawn, cookie, stored), memory


def _burst() -> list[float]:
    durations: list[float] = []
    with installed(SPAWN_WARM_TARGET=str(BURST), SPAWN_SLOTS="40") as spawn:
        for _ in range(BURST_ROUNDS):
            links.wait_until_warm(spawn)
            durations += links.burst(spawn, BURST)
    return durations


def _latency(name: str, samples: list[float], base: float, target: str, limit: float | None) -> Row:
    ratio = percentile(samples, 0.5) / base
    return Row(
        name=name,
        p50=ms(percentile(samples, 0.5)),
        p95=ms(percentile(samples, 0.95)),
        ratio=f"{ratio:.2f}",
        target=target,
        met=None if limit is None else ratio <= limit,
    )


def _bursts(samples: list[float], base: float) -> Row:
    p95 = percentile(samples, 0.95)
    return Row(
        name=f"burst of {BURST} on {BURST} warm, each to first 200",
        p50=ms(percentile(samples, 0.5)),
        p95=ms(p95),
        ratio=f"{percentile(samples, 0.5) / base:.2f}",
        target="p95 < 1 s",
        met=p95 < 1.0,
    )


def _gateway(direct: list[float], through: list[float]) -> Row:
    """The time that the gateway adds, as an amount and not as a ratio: so is the target."""
    added = {share: percentile(through, share) - percentile(direct, share) for share in (0.5, 0.95)}
    return Row(
        name="gateway, added to the first byte of an answer",
        p50=f"{added[0.5] * 1000:.1f} ms",
        p95=f"{added[0.95] * 1000:.1f} ms",
        ratio="",
        target="p50 < 5 ms",
        met=added[0.5] < 0.005,
    )


def _report(rows: list[Row], memory: dict[str, float], duration_s: float) -> str:
    engine = docker.from_env()
    try:
        version = engine.version()["Version"]
    finally:
        engine.close()
    parts = ", ".join(f"{name} {size:.0f}" for name, size in sorted(memory.items()))
    return (
        f"# Measurements\n\n"
        f"One run of `make bench`, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {duration_s:.0f} s;"
        f" {os.cpu_count()} CPUs, Linux {platform.release().split('-')[0]}, Docker {version},"
        f" Python {platform.python_version()}, SQLite.\n"
        f"Samples: bare {BARE_RUNS}, warm {WARM_RUNS}, cold {COLD_RUNS},"
        f" burst {BURST_ROUNDS} x {BURST}.\n\n"
        f"{table(rows)}\n\nMemory by process, MB: {parts}.\n"
    )


if __name__ == "__main__":
    main()
