"""When a row of the table of `make bench-bounds` is met."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from bench.bounds import report
from bench.bounds.attacks import Attack, Tell
from bench.bounds.report import Result
from bench.bounds.starts import Start, Starts
from bench.bounds.world import Kind, World

REFUSAL = "503 storage_low"


@contextlib.contextmanager
def nothing(world: World, seconds: float) -> Iterator[Tell]:
    yield lambda: ""


ATTACK = Attack(key="z", name="nothing", seconds=30, bound="", run=nothing)
QUIET = {Kind.ORDINARY: [Starts(all=[Start(ready_s=0.1)] * 30)], Kind.OUTSIDE: []}


def starts(*durations_s: float) -> Starts:
    return Starts(all=[Start(ready_s=duration_s) for duration_s in durations_s])


def result(during: Starts, **changes: object) -> Result:
    return replace(Result(attack=ATTACK, seconds=30, during=during), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(("slowest_s", "is_met"), [(0.3, True), (0.31, False)])
def test_starts_may_take_three_times_as_long_as_quiet_ones(slowest_s: float, is_met: bool) -> None:
    assert result(starts(*[slowest_s] * 3)).is_met(QUIET) is is_met


def test_one_slow_start_of_thirty_is_not_the_p95() -> None:
    assert result(starts(*[0.1] * 29, 9.0)).is_met(QUIET)
    assert not result(starts(*[0.1] * 28, 9.0, 9.0)).is_met(QUIET)


@pytest.mark.parametrize(
    "changes",
    [
        {"changed": ["it has another container"]},
        {"visits": (60, 1)},
        {"trouble": "not well"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_whatever_others_notice_fails_the_row(changes: dict[str, object]) -> None:
    assert result(starts(0.1)).is_met(QUIET)
    assert not result(starts(0.1), **changes).is_met(QUIET)


@pytest.mark.parametrize(
    "start", [Start(ready_s=0.1, refusal="502"), Start(ready_s=0.1, loss="failed: app_crashed")]
)
def test_a_start_that_is_refused_or_lost_fails_the_row(start: Start) -> None:
    assert not result(Starts(all=[start])).is_met(QUIET)


def test_while_starts_are_refused_by_design_those_afterwards_count() -> None:
    full = replace(ATTACK, refusal=REFUSAL)
    during = Starts(all=[Start(ready_s=90.0, refusal=REFUSAL)] * 30)
    assert result(during, attack=full, afterwards=starts(0.1)).is_met(QUIET)
    assert not result(during, attack=full, afterwards=starts(0.4)).is_met(QUIET)
    other = Starts(all=[Start(ready_s=90.0, refusal="502")])
    assert not result(other, attack=full, afterwards=starts(0.1)).is_met(QUIET)


def test_an_attack_that_could_not_be_carried_out_is_a_failed_row_of_the_table() -> None:
    broken = Result.broken(ATTACK, 30, "AssertionError: no machine")
    assert not broken.is_met(QUIET)
    text = document([broken, result(starts(0.1))])
    assert "| z. nothing | 30 s | 0 |" in text
    assert text.count("| NO |") == 1
    assert "no machine" in text


def test_on_a_machine_that_is_not_quiet_no_row_counts() -> None:
    noisy = {**QUIET, Kind.OUTSIDE: [starts(*[0.1] * 9, 0.6)]}
    assert report.is_noisy(noisy)
    assert not report.is_noisy(QUIET)
    assert "not quiet" in report.document([], noisy, 60.0, 30.0)


def document(results: Sequence[Result]) -> str:
    return report.document(results, QUIET, 60.0, 30.0)
