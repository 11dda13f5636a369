"""HostTasks: a host that is slow or fails delays no other host."""

from __future__ import annotations

import pytest

from orchestrator.domain import errors
from orchestrator.domain.pool.host import Host
from orchestrator.loops.host_passes import HostTasks
from tests.fakes import samples
from tests.fakes.threads import DeferredExecutor, ImmediateExecutor


def test_the_summary_gives_each_hosts_result_by_name() -> None:
    tasks = HostTasks(threads=ImmediateExecutor())
    hosts = [samples.host(name=name) for name in ("beta", "alpha", "gamma")]
    summary = tasks.run(hosts, lambda host: "" if host.name == "gamma" else host.name.upper())
    assert summary == "alpha: ALPHA; beta: BETA"
    assert tasks.run([], lambda host: "never") == ""


@pytest.mark.parametrize("error", [errors.LinkDown("no route"), errors.NotFound("removed")])
def test_a_host_that_fails_delays_no_other_and_is_tried_again(error: Exception) -> None:
    tasks = HostTasks(threads=ImmediateExecutor())
    hosts = [samples.host(name=name) for name in ("alpha", "beta")]

    def fail_on_alpha(host: Host) -> str:
        if host.name == "alpha":
            raise error
        return "done"

    assert tasks.run(hosts, fail_on_alpha) == "beta: done"
    assert tasks.run(hosts, lambda host: "done") == "alpha: done; beta: done"


def test_a_bug_is_not_swallowed() -> None:
    def fail(host: Host) -> str:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        HostTasks(threads=ImmediateExecutor()).run([samples.host()], fail)


def test_a_bug_in_the_background_is_raised_by_the_next_pass() -> None:
    threads = DeferredExecutor()
    tasks = HostTasks(threads=threads)

    def fail(host: Host) -> str:
        raise ZeroDivisionError

    assert tasks.run([samples.host()], fail, timeout_s=0) == ""
    threads.run_pending()
    with pytest.raises(ZeroDivisionError):
        tasks.run([], fail)


def test_a_host_that_is_still_busy_is_skipped() -> None:
    threads = DeferredExecutor()
    tasks = HostTasks(threads=threads)
    slow, other = samples.host(name="slow"), samples.host(name="other")
    finished: list[str] = []

    def finish(host: Host) -> str:
        finished.append(host.name)
        return ""

    assert tasks.run([slow], finish, timeout_s=0) == ""
    tasks.run([slow, other], finish, timeout_s=0)
    assert len(threads.pending) == 2
    threads.run_pending()
    assert finished == ["slow", "other"]
    tasks.run([slow], finish, timeout_s=0)
    assert len(threads.pending) == 1
