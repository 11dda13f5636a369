"""One loop: when it runs, what it survives, how it stops. No test waits for time to pass."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain import errors
from orchestrator.loops import loop as loops
from orchestrator.loops.loop import Loop, LoopSpec
from tests.fakes.terms import TermThatEnds

DEADLINE_S = 10
NEVER_S = 3600.0  # so long that only a wake-up can explain a second pass


class Passes:
    """Counts passes, and runs the next entry of a script in each."""

    def __init__(self, *script: Callable[[], object]) -> None:
        self._script = list(script)
        self._ended = threading.Semaphore(0)
        self.count = 0
        self.running = 0
        self.max_running = 0

    def __call__(self) -> str:
        self.count += 1
        self.running += 1
        self.max_running = max(self.max_running, self.running)
        try:
            if self._script:
                self._script.pop(0)()
            return "did something"
        finally:
            self.running -= 1
            self._ended.release()

    def wait(self, count: int = 1) -> None:
        """Wait until `count` more passes have ended."""
        for _ in range(count):
            assert self._ended.acquire(timeout=DEADLINE_S), "no pass ended in time"


def raising(error: BaseException) -> Callable[[], object]:
    def fail() -> None:
        raise error

    return fail


class Errors:
    """The errors that ended loops."""

    def __init__(self) -> None:
        self.raised: list[BaseException] = []
        self.any = threading.Event()

    def __call__(self, error: BaseException) -> None:
        self.raised.append(error)
        self.any.set()


@contextmanager
def running(passes: Callable[[], str], every_s: float = NEVER_S) -> Iterator[tuple[Loop, Errors]]:
    errors_of_loop = Errors()
    loop = Loop(LoopSpec(name="test", every_s=every_s, run=passes), errors_of_loop)
    loop.start()
    try:
        yield loop, errors_of_loop
    finally:
        assert loop.stop(DEADLINE_S), "the loop did not stop"


def test_the_first_pass_is_made_at_once() -> None:
    passes = Passes()
    with running(passes):
        passes.wait()
    assert passes.count == 1


def test_passes_follow_each_other_at_the_interval() -> None:
    passes = Passes()
    with running(passes, every_s=0.001):
        passes.wait(5)
    assert passes.max_running == 1


class Hours:
    """A clock, and a pass that takes an hour by it."""

    def __init__(self, passes: Passes, summary: str) -> None:
        self._passes = passes
        self._summary = summary
        self._now = 0.0

    def __call__(self) -> float:
        return self._now

    def run(self) -> str:
        self._now += 3600
        self._passes()
        return self._summary


@pytest.mark.parametrize(
    ("summary", "every_s", "rest_s"),
    [("", NEVER_S, 0.001), ("did something", 0.001, NEVER_S)],
    ids=["nothing happens", "something happens"],
)
def test_at_rest_a_loop_has_another_interval(summary: str, every_s: float, rest_s: float) -> None:
    passes = Passes()
    hours = Hours(passes, summary)
    spec = LoopSpec(name="test", every_s=every_s, rest_s=rest_s, run=hours.run)
    loop = Loop(spec, Errors(), clock=hours)
    loop.start()
    passes.wait(5)
    assert loop.stop(DEADLINE_S)


def test_a_wake_up_makes_a_pass_at_once() -> None:
    passes = Passes()
    with running(passes) as (loop, _):
        passes.wait()
        loop.wake()
        passes.wait()
    assert passes.count == 2


def test_a_wake_up_during_a_pass_is_not_lost_and_passes_never_overlap() -> None:
    in_pass, go_on = threading.Event(), threading.Event()

    def long_pass() -> None:
        in_pass.set()
        assert go_on.wait(DEADLINE_S)

    passes = Passes(long_pass)
    with running(passes) as (loop, _):
        assert in_pass.wait(DEADLINE_S)
        for _ in range(3):
            loop.wake()
        go_on.set()
        passes.wait(2)
    assert passes.count == 2, "a burst of wake-ups is one pass"
    assert passes.max_running == 1


def test_a_pass_that_lost_a_race_is_repeated_at_once() -> None:
    passes = Passes(raising(errors.StaleWrite("somebody wrote first")))
    with running(passes):
        passes.wait(2)
    assert passes.count == 2


@pytest.mark.parametrize(
    "error",
    [
        errors.Temporary("the database is away"),
        errors.EngineUnavailable("no answer"),
        errors.ProxyRejected("line 1"),
        errors.NotFound("it was removed meanwhile"),
    ],
    ids=lambda error: error.code,
)
def test_a_pass_that_fails_for_now_is_survived(error: errors.SpawnError) -> None:
    passes = Passes(raising(error), raising(error))
    with running(passes) as (loop, errors_of_loop):
        passes.wait()
        for _ in range(2):
            loop.wake()
            passes.wait()
    assert errors_of_loop.raised == []


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a bug"),
        errors.IllegalTransition("a bug, told with its history"),
        errors.Conflict("not for now"),
        SystemExit(1),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_pass_that_fails_for_any_other_reason_ends_the_loop(
    error: BaseException,
) -> None:
    passes = Passes(raising(error))
    with running(passes) as (loop, errors_of_loop):
        assert errors_of_loop.any.wait(DEADLINE_S)
        loop.wake()
    assert errors_of_loop.raised == [error]
    assert passes.count == 1


def test_a_stop_waits_for_the_running_pass() -> None:
    in_pass, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def long_pass() -> None:
        in_pass.set()
        assert go_on.wait(DEADLINE_S)
        ended.set()

    passes = Passes(long_pass)
    with running(passes) as (loop, _):
        assert in_pass.wait(DEADLINE_S)
        assert not loop.stop(timeout_s=0), "it can't have stopped"
        assert not ended.is_set()
        go_on.set()
        assert loop.stop(DEADLINE_S)
    assert ended.is_set()
    assert passes.count == 1


def test_a_loop_that_gathers_a_burst_still_stops_at_once() -> None:
    passes = Passes()
    spec = LoopSpec(name="test", every_s=NEVER_S, run=passes, gather_s=NEVER_S)
    loop = Loop(spec, Errors())
    loop.start()
    passes.wait()
    loop.wake()
    assert loop.stop(DEADLINE_S)


def test_an_urgent_wake_up_ends_the_gathering() -> None:
    passes = Passes()
    spec = LoopSpec(name="test", every_s=NEVER_S, run=passes, gather_s=NEVER_S)
    loop = Loop(spec, Errors())
    loop.start()
    passes.wait()
    loop.wake()
    loop.wake(at_once=True)
    passes.wait()
    loop.wake(at_once=True)
    passes.wait()
    assert loop.stop(DEADLINE_S)


@given(st.integers(1, 100_000), st.floats(0, 3600))
def test_the_backoff_is_between_the_interval_and_ten_seconds(failures: int, every_s: float) -> None:
    wait_s = loops._backoff_s(failures, every_s)
    assert min(every_s, 10) <= wait_s <= 10


def test_the_backoff_grows_with_the_failures_in_a_row() -> None:
    longest = [max(loops._backoff_s(failures, 0.5) for _ in range(200)) for failures in (1, 3, 9)]
    assert longest[0] <= 1.0
    assert longest[1] <= 4.0
    assert longest == sorted(longest)


def test_a_loop_makes_no_pass_once_another_daemon_may_lead() -> None:
    passes, term, errors_of_loop = Passes(), TermThatEnds(), Errors()
    spec = LoopSpec(name="test", every_s=0.001, run=passes)
    loop = Loop(spec, errors_of_loop, term.check)
    loop.start()
    passes.wait(3)
    term.is_over = True
    checks = term.checks
    while term.checks < checks + 2:  # the second check follows whatever pass was running
        loop.wake()
    count = passes.count
    assert loop.stop(DEADLINE_S)
    assert passes.count == count
    assert errors_of_loop.raised == []
