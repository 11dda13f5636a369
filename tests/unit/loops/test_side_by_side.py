"""HostTasks: a host that is slow or fails delays no other host."""

from __future__ import annotations

import pytest

from orchestrator.domain import errors
from orchestrator.domain.pool.host import Host
from orchestrator.loops.host_tasks import HostTasks, crash_pauses
from tests.fakes import samples
from tests.fakes.clock import ManualClock
from tests.fakes.memory import remembers
from tests.fakes.threads import Deferred, run_at_once


def test_the_summary_gives_each_hosts_result_by_name() -> None:
    tasks = HostTasks(ManualClock(), spawn=run_at_once)
    hosts = [samples.host(name=name) for name in ("beta", "alpha", "gamma")]
    summary = tasks.run(hosts, lambda host: "" if host.name == "gamma" else host.name.upper())
    assert summary == "alpha: ALPHA; beta: BETA"
    assert tasks.run([], lambda host: "never") == ""


@pytest.mark.parametrize("error", [errors.LinkDown("no route"), errors.NotFound("removed")])
def test_a_host_that_fails_delays_no_other_and_is_tried_again(error: Exception) -> None:
    tasks = HostTasks(ManualClock(), spawn=run_at_once)
    hosts = [samples.host(name=name) for name in ("alpha", "beta")]

    def fail_on_alpha(host: Host) -> str:
        if host.name == "alpha":
            raise error
        return "done"

    assert tasks.run(hosts, fail_on_alpha) == "beta: done"
    assert tasks.run(hosts, lambda host: "done") == "alpha: done; beta: done"


def test_whatever_one_host_raises_suspects_and_pauses_that_host_alone() -> None:
    clock = ManualClock()
    suspected: list[tuple[str, str]] = []
    tasks = HostTasks(
        clock,
        spawn=run_at_once,
        suspect=lambda host, reason: suspected.append((host.name, reason)),
    )
    hosts = [samples.host(name=name) for name in ("alpha", "beta")]
    worked_on: list[str] = []

    def fail_on_alpha(host: Host) -> str:
        worked_on.append(host.name)
        if host.name == "alpha":
            raise KeyError("Actor")
        return "done"

    assert tasks.run(hosts, fail_on_alpha) == "beta: done"
    assert suspected == [("alpha", "our work on it failed: KeyError: 'Actor'")]
    assert tasks.run(hosts, fail_on_alpha) == "beta: done"
    assert worked_on == ["alpha", "beta", "beta"], "alpha is left alone for a while"
    clock.advance(5)
    tasks.run(hosts, fail_on_alpha)
    clock.advance(5)
    worked_on.clear()
    tasks.run(hosts, fail_on_alpha)
    assert worked_on == ["beta"], "the second pause is longer"
    clock.advance(5)
    assert tasks.run(hosts, lambda host: "done") == "alpha: done; beta: done"


def test_a_pause_never_exceeds_five_minutes_and_starts_small_after_a_quiet_time() -> None:
    clock = ManualClock()
    pauses = crash_pauses(clock)
    host = samples.host()
    lengths = []
    for _ in range(9):
        lengths.append(pauses.fail(host.id))
        clock.advance(lengths[-1])
        assert not pauses.is_pausing(host.id)
    assert lengths == [5, 10, 20, 40, 80, 160, 300, 300, 300]
    clock.advance(300)
    assert pauses.fail(host.id) == 5


def test_a_crash_is_forgotten_with_its_host() -> None:
    clock = ManualClock()
    pauses = crash_pauses(clock)
    left, crashing = samples.host(), samples.host()
    pauses.fail(left.id)
    assert remembers(pauses, left.id)
    clock.advance(5 + 300)
    pauses.fail(crashing.id)
    assert not remembers(pauses, left.id)


def test_a_store_that_is_away_while_a_host_is_suspected_harms_nobody() -> None:
    def refuse(host: Host, reason: str) -> None:
        raise errors.Temporary("the database is not available")

    def fail(host: Host) -> str:
        raise ZeroDivisionError

    tasks = HostTasks(ManualClock(), suspect=refuse, spawn=run_at_once)
    assert tasks.run([samples.host()], fail) == ""


def test_a_host_that_is_still_busy_is_skipped_and_nobody_waits_for_it() -> None:
    threads = Deferred()
    tasks = HostTasks(ManualClock(), spawn=threads)
    slow, other = samples.host(name="slow"), samples.host(name="other")

    def finish(host: Host) -> str:
        return "done"

    assert tasks.run([slow], finish) == ""
    assert tasks.run([slow, other], finish) == ""
    threads.run_pending()
    assert tasks.take_summary() == "other: done; slow: done"
    assert tasks.run([slow], finish) == ""
    assert len(threads.pending) == 1


def test_hosts_that_hang_take_no_turn_from_others() -> None:
    """However many they are. Only work that has just begun is bounded over all hosts."""
    clock, threads = ManualClock(), Deferred()
    tasks = HostTasks(clock, spawn=threads)
    hanging = [samples.host(name=f"hanging-{number}") for number in range(200)]
    for _ in range(4):
        tasks.run(hanging, lambda _host: "")
        clock.advance(2)
    assert len(threads.pending) == 200
    assert tasks.offer(samples.host(name="other"), lambda _host: "")
