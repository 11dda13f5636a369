"""The table of the runs, and when a row is met."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from bench.bounds.attacks import Attack
from bench.bounds.starts import Starts
from bench.bounds.world import Kind
from bench.measure import percentile

RATIO_MAX = 3.0  # p95 of other users' warm starts, by the quiet one of the same run
NOISE_MAX = 5.0  # p95 by p50 of quiet starts; on a machine that others use, no row counts
_CELL_CHARS = 240


@dataclass(frozen=True, kw_only=True)
class Result:
    """What one attack did to the others."""

    attack: Attack
    seconds: float
    during: Starts | None  # None: the attack could not be carried out
    afterwards: Starts | None = None  # for an attack during which nobody may start an app
    changed: Sequence[str] = ()  # the witnesses that were restarted or lost
    visits: tuple[int, int] = (0, 0)  # to witnesses: all, and those that failed
    seen: str = ""
    trouble: str = ""  # what was not well afterwards

    @classmethod
    def broken(cls, attack: Attack, seconds: float, trouble: str) -> Result:
        return cls(attack=attack, seconds=seconds, during=None, trouble=trouble)

    @property
    def measured(self) -> Starts | None:
        """The starts that the limit is about."""
        return self.afterwards if self.attack.refusal else self.during

    @property
    def losses(self) -> list[str]:
        """What is wrong with starts, beside their duration."""
        if self.during is None or self.measured is None:
            return ["nothing was measured"]
        unexpected = [
            f"{count} x {refusal}"
            for refusal, count in self.during.refusals.items()
            if refusal != self.attack.refusal
        ]
        if self.afterwards is not None:
            unexpected += [f"afterwards {refusal}" for refusal in self.afterwards.refusals]
            unexpected += self.afterwards.losses
        return unexpected + self.during.losses

    def ratio(self, quiet: Mapping[Kind, Sequence[Starts]]) -> float:
        """The p95 by the quiet one."""
        if self.measured is None or not quiet[self.attack.kind]:
            return math.inf
        return self.measured.p95_s / quiet_p95_s(quiet[self.attack.kind])

    def is_met(self, quiet: Mapping[Kind, Sequence[Starts]]) -> bool:
        return (
            self.ratio(quiet) <= RATIO_MAX
            and not self.changed
            and not self.losses
            and not self.visits[1]
            and not self.trouble
        )


def quiet_p95_s(phases: Sequence[Starts]) -> float:
    """The p95 of all quiet starts of one kind of installation."""
    return _quiet_s(phases, 0.95)


def is_noisy(quiet: Mapping[Kind, Sequence[Starts]]) -> bool:
    """Whether quiet starts differ so much that three times their p95 says nothing."""
    return any(
        quiet_p95_s(phases) > NOISE_MAX * _quiet_s(phases, 0.5)
        for phases in quiet.values()
        if phases
    )


def _quiet_s(phases: Sequence[Starts], share: float) -> float:
    return percentile([start.ready_s for phase in phases for start in phase.all], share)


def summary(result: Result) -> str:
    """One line for the terminal, while the run goes on."""
    p95 = f"p95 {_ms(result.measured.p95_s)}" if result.measured else "no starts"
    parts = [p95, f"changed {len(result.changed)}", f"visits failed {result.visits[1]}"]
    parts += [*result.changed, *result.losses, result.seen, result.trouble]
    return "; ".join(part for part in parts if part)


def document(
    results: Sequence[Result],
    quiet: Mapping[Kind, Sequence[Starts]],
    duration_s: float,
    longest_s: float,
) -> str:
    """The text of bench/bounds.md."""
    short = (
        f" Shortened: no attack longer than {longest_s:.0f} s." if math.isfinite(longest_s) else ""
    )
    if is_noisy(quiet):
        short += " **The machine was not quiet: no row counts.**"
    rows = "\n".join(_row(result, quiet) for result in results)
    phases = "\n".join(
        f"- {kind.value}: {len(phases)} phases, p95 of all {_ms(quiet_p95_s(phases))};"
        f" p50 / p95 of each: {', '.join(f'{_ms(s.p50_s)} / {_ms(s.p95_s)}' for s in phases)}"
        for kind, phases in quiet.items()
        if phases
    )
    return (
        "# Bounds\n\n"
        f"One run of `make bench-bounds`, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC,"
        f" {duration_s:.0f} s; {os.cpu_count()} CPUs,"
        f" Linux {platform.release().split('-')[0]}.{short}\n\n"
        "Twenty apps of twenty users run meanwhile, each with a value in memory. During each attack"
        " other users start apps from the warm pool: the time from POST to READY, as they see it"
        f" through the public API. The limit is {RATIO_MAX:g} times the p95 of the quiet starts in"
        " the same run; no app is restarted, no session is lost, no visit fails, and a while later"
        " `/ready`, the pool and `spawnctl doctor` are as before.\n\n"
        "| attack | lasts | starts | p95 | of quiet | restarted | lost or refused | visits failed |"
        " what bounds it | met |\n"
        "|---|---:|---:|---:|---:|---:|---:|---:|---|---|\n"
        f"{rows}\n\n"
        f"What was seen:\n\n{_notes(results)}\n\n"
        f"Quiet starts before, between and after:\n\n{phases}\n"
    )


def _row(result: Result, quiet: Mapping[Kind, Sequence[Starts]]) -> str:
    measured = result.measured
    cells = [
        f"{result.attack.key}. {result.attack.name}",
        f"{result.seconds:.0f} s",
        str(len(measured.all)) if measured else "0",
        _ms(measured.p95_s) if measured else "",
        f"{result.ratio(quiet):.1f}" if measured else "",
        str(len(result.changed)),
        str(len(result.losses)),
        f"{result.visits[1]} of {result.visits[0]}",
        result.attack.bound,
        "yes" if result.is_met(quiet) else "NO",
    ]
    return f"| {' | '.join(cells)} |"


def _notes(results: Sequence[Result]) -> str:
    lines = []
    for result in results:
        parts = [result.seen, *result.changed[:3], *result.losses[:3], result.trouble]
        if result.attack.refusal and result.during is not None:
            count = result.during.refusals[result.attack.refusal]
            parts.insert(
                0, f"{count} starts refused with {result.attack.refusal}; measured afterwards"
            )
        text = "; ".join(" ".join(part.split())[:_CELL_CHARS] for part in parts if part)
        lines.append(f"- {result.attack.key}: {text or 'nothing'}")
    return "\n".join(lines)


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"
