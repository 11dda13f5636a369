"""`make bench-bounds`: run the attacks, print the table, and write bench/bounds.md."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
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
BETWEEN = 12  # in the quiet time between two attacks
INTERVAL_S = 1.0  # between two starts at least: the pool fills up again meanwhile


def main() -> None:
    """Measure, print, write. Exits with 1 if a row misses its limit, or the machine isn't quiet."""
    args = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that nothing is left over
    run = Run(longest_s=args.seconds, output=args.output)
    for kind in Kind:
        rest = [
            attack
            for attack in attacks.ALL
            if attack.kind is kind and attack.key in (args.only or attack.key)
        ]
        while rest:  # an attack that leaves trouble behind costs the rest a new installation
            rest = run.on_one_installation(kind, rest)
    print("\n" + run.text())
    is_met = all(result.is_met(run.quiet) for result in run.results)
    sys.exit(0 if is_met and not report.is_noisy(run.quiet) else 1)


@dataclass(kw_only=True)
class Run:
    """All that was measured so far. The table is written after each attack."""

    longest_s: float  # no attack lasts longer
    output: Path
    begun_at: float = field(default_factory=time.monotonic)
    quiet: dict[Kind, list[Starts]] = field(default_factory=lambda: {kind: [] for kind in Kind})
    results: list[Result] = field(default_factory=list)

    def on_one_installation(self, kind: Kind, rest: Sequence[Attack]) -> list[Attack]:
        """Run attacks on a new installation while it is well. Returns those that are left."""
        left = list(rest)
        _say(f"starting an installation ({kind.value})")
        try:
            with world.running(kind) as place:
                self._be_quiet(place, STARTS)
                while left:
                    result = self._measure(place, left.pop(0))
                    if result.trouble:
                        return left
                    self._be_quiet(place, BETWEEN)
        except Exception as error:  # noqa: BLE001 - the rows that can be measured must not be lost
            _say(f"   the installation failed: {error}"[:2000])
            if len(left) == len(rest):  # not even one: the next installation would fail, too
                for attack in rest:
                    self._add(Result.broken(attack, attack.seconds, f"no installation: {error}"))
                return []
        return left

    def text(self) -> str:
        """The document, as far as the run has come."""
        duration_s = time.monotonic() - self.begun_at
        return report.document(self.results, self.quiet, duration_s, self.longest_s)

    def _measure(self, place: World, attack: Attack) -> Result:
        seconds = max(min(attack.seconds, self.longest_s), STARTS * INTERVAL_S)
        _say(f"{attack.key}: {attack.name}, {seconds:.0f} s")
        result = _attack(place, attack, seconds)
        self._add(result)
        return result

    def _add(self, result: Result) -> None:
        _say(f"   {report.summary(result)}"[:2000])
        self.results.append(result)
        self.output.write_text(self.text())

    def _be_quiet(self, place: World, count: int) -> None:
        phase = starts.steady(place.spawn, count, count * INTERVAL_S)
        self.quiet[place.kind].append(phase)
        _say(f"   quiet: p50 {phase.p50_s * 1000:.0f} ms, p95 {phase.p95_s * 1000:.0f} ms")


def _attack(place: World, attack: Attack, seconds: float) -> Result:
    try:
        with attack.run(place, seconds) as tell, Visits(place.witnesses) as visits:
            asked = starts.ask_steadily(place.spawn, STARTS, seconds)
            seen = tell()
        during = asked()  # some of them may have waited for the end of the attack
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


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.bounds", description=__doc__)
    parser.add_argument("--only", default="", help="letters of the attacks, such as ace")
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
