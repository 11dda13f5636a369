"""`make bench-bounds`: run the attacks, print the table, and write bench/bounds.md."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from bench.bounds import attacks, report, starts, world
from bench.bounds.attacks import Attack
from bench.bounds.report import Result
from bench.bounds.starts import Starts
from bench.bounds.witnesses import Visits
from bench.bounds.world import Kind, World

RESULTS = Path(__file__).parents[1] / "bounds.md"
STARTS = 30  # in each attack, and in the quiet time before the first one
BETWEEN = 15  # in the quiet time between two attacks
INTERVAL_S = 1.0  # between two starts at least: the pool fills up again meanwhile


def main() -> None:
    """Measure, print, write. Exits with 1 if a row misses its limit."""
    args = _arguments()
    chosen = [attack for attack in attacks.ALL if not args.only or attack.key in args.only]
    begun_at = time.monotonic()
    quiet: dict[Kind, list[Starts]] = {kind: [] for kind in Kind}
    results: list[Result] = []
    for kind in Kind:
        rest = [attack for attack in chosen if attack.kind is kind]
        while rest:  # an attack that leaves trouble behind costs the rest a new installation
            rest = _run_on_one(kind, rest, args.seconds, quiet[kind], results)
    text = report.document(results, quiet, time.monotonic() - begun_at, args.seconds)
    args.output.write_text(text)
    print("\n" + text)
    sys.exit(0 if all(result.is_met(quiet) for result in results) else 1)


def _run_on_one(
    kind: Kind, rest: Sequence[Attack], longest_s: float, quiet: list[Starts], results: list[Result]
) -> list[Attack]:
    """Run attacks on one installation while it is well. Returns those that are left."""
    _say(f"starting an installation ({kind.value})")
    with world.running(kind) as place:
        _quiet(place, STARTS, quiet)
        for number, attack in enumerate(rest, 1):
            seconds = max(min(attack.seconds, longest_s), STARTS * INTERVAL_S)
            _say(f"{attack.key}: {attack.name}, {seconds:.0f} s")
            result = _attack(place, attack, seconds)
            results.append(result)
            _say(f"   {report.summary(result)}")
            if result.trouble:
                return list(rest[number:])
            _quiet(place, BETWEEN, quiet)
    return []


def _attack(place: World, attack: Attack, seconds: float) -> Result:
    try:
        with attack.run(place, seconds) as tell, Visits(place.witnesses) as visits:
            during = starts.steady(place.spawn, STARTS, seconds)
            seen = tell()
        trouble = place.await_well()
        afterwards = None
        if attack.refusal and not trouble:
            afterwards = starts.steady(place.spawn, STARTS, STARTS * INTERVAL_S)
        changed = place.witnesses.replace_changed()
        trouble = trouble or place.await_well()
    except Exception as error:  # noqa: BLE001 - an attack that breaks the run is a row, too
        return Result.broken(attack, seconds, f"{type(error).__name__}: {error}")
    return Result(
        attack=attack,
        seconds=seconds,
        during=during,
        afterwards=afterwards,
        changed=changed,
        visits=(visits.count, visits.failed),
        seen=seen,
        trouble=trouble,
    )


def _quiet(place: World, count: int, quiet: list[Starts]) -> None:
    quiet.append(starts.steady(place.spawn, count, count * INTERVAL_S))
    _say(f"   quiet: p50 {quiet[-1].p50_s * 1000:.0f} ms, p95 {quiet[-1].p95_s * 1000:.0f} ms")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.bounds", description=__doc__)
    parser.add_argument("--only", default="", help="letters of the attacks, e.g. ace")
    parser.add_argument(
        "--seconds",
        type=float,
        default=float(os.environ.get("SPAWN_BENCH_SECONDS") or "inf"),
        help="no attack lasts longer; for trying (default: SPAWN_BENCH_SECONDS)",
    )
    parser.add_argument("--output", type=Path, default=RESULTS)
    return parser.parse_args()


def _say(text: str) -> None:
    print(f"{datetime.now(UTC):%H:%M:%S} {text}", flush=True)


if __name__ == "__main__":
    main()
