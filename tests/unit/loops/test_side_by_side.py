"""Work on hosts side by side: one that is slow or fails holds up nobody but itself."""

from __future__ import annotations

import pytest

from orchestrator.domain import errors
from orchestrator.domain.pool.host import Host
from orchestrator.loops.host_passes import SideBySide
from tests.fakes import samples
from tests.fakes.threads import CallersThread, LaterThread


def test_what_hosts_said_is_told_by_name() -> None:
    work = SideBySide(threads=CallersThread())
    hosts = [samples.host(name=name) for name in ("beta", "alpha", "gamma")]
    said = work.each(hosts, lambda host: "" if host.name == "gamma" else host.name.upper())
    assert said == "alpha: ALPHA; beta: BETA"
    assert work.each([], lambda host: "never") == ""


@pytest.mark.parametrize("error", [errors.LinkDown("no route"), errors.NotFound("removed")])
def test_a_host_that_fails_keeps_nobody_else_and_is_worked_on_again(error: Exception) -> None:
    work = SideBySide(threads=CallersThread())
    hosts = [samples.host(name=name) for name in ("alpha", "beta")]

    def fail_on_alpha(host: Host) -> str:
        if host.name == "alpha":
            raise error
        return "done"

    assert work.each(hosts, fail_on_alpha) == "beta: done"
    assert work.each(hosts, lambda host: "done") == "alpha: done; beta: done"


def test_a_bug_is_not_swallowed() -> None:
    def fail(host: Host) -> str:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        SideBySide(threads=CallersThread()).each([samples.host()], fail)


def test_a_bug_that_nobody_waited_for_is_told_by_the_next_pass() -> None:
    threads = LaterThread()
    work = SideBySide(threads=threads)

    def fail(host: Host) -> str:
        raise ZeroDivisionError

    assert work.each([samples.host()], fail, patience_s=0) == ""
    threads.catch_up()
    with pytest.raises(ZeroDivisionError):
        work.each([], fail)


def test_a_host_that_is_still_worked_on_is_left_alone() -> None:
    threads = LaterThread()
    work = SideBySide(threads=threads)
    slow, other = samples.host(name="slow"), samples.host(name="other")
    done: list[str] = []

    def note(host: Host) -> str:
        done.append(host.name)
        return ""

    assert work.each([slow], note, patience_s=0) == ""
    work.each([slow, other], note, patience_s=0)
    assert len(threads.kept) == 2
    threads.catch_up()
    assert done == ["slow", "other"]
    work.each([slow], note, patience_s=0)
    assert len(threads.kept) == 1
