"""The lease: one daemon leads, and nobody waits for one that has died."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestrator import ports
from orchestrator.domain import errors
from orchestrator.entrypoints.leadership import holders
from orchestrator.entrypoints.leadership.lease import LEASE, LEASE_S, Lease
from tests.fakes.terms import LeasesThatTakeLong, Seconds, StoreWithLeases
from tests.unit.services.conftest import catalog, world
from tests.unit.services.world import World

__all__ = ["catalog", "world"]

DEADLINE_S = 10


def dead_holder() -> str:
    """The holder id of a process that has ended."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    holder = str(holders.holder_of(child.pid))
    child.communicate()
    return holder


class LeasesTakenByOthers:
    """Leases that another daemon takes when the test says so."""

    def __init__(self, leases: ports.Leases) -> None:
        self._leases = leases
        self.are_taken = False

    def hold(self, name: str, holder: str, until: datetime, now: datetime) -> int | None:
        return None if self.are_taken else self._leases.hold(name, holder, until, now)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._leases, name)


class StopAtFirstWait(threading.Event):
    """A stop event that is set as soon as somebody waits for it."""

    def wait(self, timeout: float | None = None) -> bool:
        del timeout
        self.set()
        return True


def has_died(holder: str) -> bool:
    return holders.parse(holder).has_died


def hold_lease(world: World, holder: str) -> None:
    now = world.clock.now()
    assert world.store.leases.hold(LEASE, holder, now + timedelta(hours=1), now)


def test_a_live_process_has_not_died() -> None:
    assert not has_died(str(holders.holder_of(os.getpid())))


def test_an_ended_process_has_died() -> None:
    assert has_died(dead_holder())


def test_a_process_has_died_if_another_one_has_its_number() -> None:
    host, namespace, pid, *_ = str(holders.holder_of(os.getpid())).split(":")
    assert has_died(":".join((host, namespace, pid, "1")))


def test_a_process_of_another_machine_or_boot_may_be_alive() -> None:
    host, namespace, pid, started_at, _ = dead_holder().split(":")
    assert not has_died(":".join(("elsewhere", namespace, pid, started_at)))
    assert not has_died(":".join((host, "another-boot.1", pid, started_at)))
    assert not has_died("vm:4829")
    assert not has_died("")


def test_nobody_waits_for_a_daemon_that_died_on_this_machine(world: World) -> None:
    hold_lease(world, dead_holder())
    lease = Lease(world.deps, threading.Event())
    assert lease.acquire()
    assert world.store.leases.holder(LEASE, world.clock.now()) == str(
        holders.holder_of(os.getpid())
    )
    lease.release()
    assert world.store.leases.holder(LEASE, world.clock.now()) is None


def test_a_live_daemon_is_waited_for(world: World) -> None:
    living = str(holders.holder_of(os.getppid()))
    hold_lease(world, living)
    assert not Lease(world.deps, StopAtFirstWait()).acquire()
    assert world.store.leases.holder(LEASE, world.clock.now()) == living


def test_a_term_counts_from_when_the_database_was_asked(world: World) -> None:
    seconds = Seconds()
    lease = slow_lease(world, seconds, takes_s=4)
    assert lease.acquire()
    lease.check()
    seconds.value += LEASE_S - 4
    with pytest.raises(errors.TermOver):
        lease.check()


def test_a_daemon_that_got_its_answer_too_late_does_not_lead_for_a_moment(world: World) -> None:
    seconds = Seconds()
    lease = slow_lease(world, seconds, takes_s=LEASE_S + 1)
    assert lease.acquire()
    with pytest.raises(errors.TermOver):
        lease.check()
    assert not lease.keep()
    lease.release()


class StopSetAtSecondWait(threading.Event):
    """A stop event. In the first wait for it all time passes; it is set in the second one."""

    def __init__(self, seconds: Seconds) -> None:
        super().__init__()
        self._seconds = seconds

    def wait(self, timeout: float | None = None) -> bool:
        del timeout
        if self._seconds.value < 5000:
            self._seconds.value = 5000
            return self.is_set()
        self.set()
        return True


def test_a_term_that_ends_while_the_machine_sleeps_is_noticed(world: World) -> None:
    """Waits don't count the time of that sleep: the daemon looks at the clock again and again."""
    seconds = Seconds()
    lease = Lease(world.deps, StopSetAtSecondWait(seconds), seconds)
    assert lease.acquire()
    assert not lease.keep()
    lease.release()


class StopThatNobodyPolls(threading.Event):
    """A stop event. Nobody looks at anything until it is set."""

    def wait(self, timeout: float | None = None) -> bool:
        del timeout
        return super().wait(DEADLINE_S)


def test_who_waits_for_the_end_of_a_term_is_woken_by_it(world: World) -> None:
    stop = StopThatNobodyPolls()
    leases = LeasesTakenByOthers(world.store.leases)
    store: Any = StoreWithLeases(world.store, leases)
    lease = Lease(replace(world.deps, store=store), stop)
    assert lease.acquire()
    leases.are_taken = True
    assert not lease.keep()
    assert stop.is_set()
    lease.release()


@pytest.mark.parametrize("renews", [True, False])
def test_a_daemon_that_is_told_to_stop_stops_in_order_if_it_still_leads(
    world: World, renews: bool
) -> None:
    seconds = Seconds()
    stop = threading.Event()
    lease = Lease(world.deps, stop, seconds)
    assert lease.acquire()
    stop.set()
    if not renews:
        seconds.value += LEASE_S
    assert lease.keep() is renews
    lease.release()


def test_before_it_has_the_lease_and_after_its_release_a_daemon_may_do_nothing(
    world: World,
) -> None:
    lease = Lease(world.deps, threading.Event())
    with pytest.raises(errors.TermOver):
        lease.check()
    assert lease.acquire()
    lease.check()
    lease.release()
    with pytest.raises(errors.TermOver):
        lease.check()


class LeasesThatAreAway:
    """Leases of a database that doesn't answer before it has been asked for a few times."""

    def __init__(self, leases: ports.Leases, times: int) -> None:
        self._leases = leases
        self._times = times

    def last(self, name: str) -> ports.LeaseRecord | None:
        if self._times:
            self._times -= 1
            raise errors.Temporary("it does not answer", code="database_unavailable")
        return self._leases.last(name)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._leases, name)


def test_a_daemon_waits_for_a_database_that_does_not_answer(world: World) -> None:
    store: Any = StoreWithLeases(world.store, LeasesThatAreAway(world.store.leases, times=2))
    stop = SecondsAtWaits(Seconds(), left=20)
    lease = Lease(replace(world.deps, store=store), stop)
    assert lease.acquire()
    lease.check()


def slow_lease(world: World, seconds: Seconds, takes_s: float) -> Lease:
    leases = LeasesThatTakeLong(world.store.leases, seconds, takes_s)
    store: Any = StoreWithLeases(world.store, leases)
    return Lease(replace(world.deps, store=store), threading.Event(), seconds)


class RenewAtWaits(threading.Event):
    """A stop event. At each wait another control plane renews its lease."""

    def __init__(self, world: World, holder: str) -> None:
        super().__init__()
        self._world = world
        self._holder = holder

    def wait(self, timeout: float | None = None) -> bool:
        del timeout
        self._world.clock.advance(1)
        hold_lease(self._world, self._holder)
        return False


ELSEWHERE = "elsewhere:another-boot.1:7:1:1.2"


def test_a_daemon_does_not_wait_for_another_control_plane_that_lives(world: World) -> None:
    hold_lease(world, ELSEWHERE)
    lease = Lease(world.deps, RenewAtWaits(world, ELSEWHERE))
    with pytest.raises(errors.Conflict, match="the control plane on elsewhere leads") as caught:
        lease.acquire()
    assert caught.value.code == "standby"


def test_what_an_earlier_boot_has_left_is_waited_for(world: World) -> None:
    hold_lease(world, ELSEWHERE)
    assert not Lease(world.deps, StopAtFirstWait()).acquire()


def test_a_control_plane_is_another_if_its_machine_boot_or_folder_is(tmp_path: Path) -> None:
    ours = holders.holder_of(os.getpid(), tmp_path)
    (tmp_path / "copy").mkdir()
    assert not ours.is_elsewhere(ours)
    assert not holders.holder_of(os.getppid(), tmp_path).is_elsewhere(ours)
    assert holders.holder_of(os.getpid(), tmp_path / "copy").is_elsewhere(ours)
    assert holders.parse(ELSEWHERE).is_elsewhere(ours)
    assert replace(ours, namespace="another-boot.1").is_elsewhere(ours)
    assert not replace(ours, folder="").is_elsewhere(ours), "an older release wrote no folder"
    assert holders.parse(str(ours)) == ours


class SecondsAtWaits(threading.Event):
    """A stop event. Each wait takes a second, and the given number of them ends it."""

    def __init__(self, seconds: Seconds, left: int) -> None:
        super().__init__()
        self._seconds = seconds
        self._left = left

    def wait(self, timeout: float | None = None) -> bool:
        del timeout
        self._seconds.value += 1
        self._left -= 1
        if self._left == 0:
            self.set()
        return self.is_set()


def test_a_lease_that_nobody_renews_is_taken_whatever_the_clocks_say(world: World) -> None:
    """Its machine's clock was an hour ahead, or ours has been set back."""
    hold_lease(world, ELSEWHERE)
    seconds = Seconds()
    lease = Lease(world.deps, SecondsAtWaits(seconds, left=20), seconds)
    assert lease.acquire()
    assert LEASE_S < seconds.value - Seconds().value <= LEASE_S + 1
    assert lease.number == 2
    lease.release()


def test_a_lease_that_has_run_out_by_our_clock_is_watched_first(world: World) -> None:
    """Its holder's time may lie far behind ours, and the holder be alive."""
    hold_lease(world, ELSEWHERE)
    world.clock.advance(100 * 3600)
    assert not Lease(world.deps, StopAtFirstWait()).acquire()


def test_a_lease_that_was_renewed_since_we_saw_it_is_not_taken(world: World) -> None:
    """Although our clock is ahead of its holder's."""
    hold_lease(world, ELSEWHERE)
    seen = world.store.leases.last(LEASE)
    assert seen is not None
    world.clock.advance(1)
    hold_lease(world, ELSEWHERE)
    far = world.clock.now() + timedelta(days=9)
    assert world.store.leases.hold(LEASE, "ours", far, seen.until) is None


def test_a_released_lease_is_free_at_once(world: World) -> None:
    lease = Lease(world.deps, StopAtFirstWait())
    assert lease.acquire()
    lease.release()
    assert Lease(world.deps, StopAtFirstWait()).acquire()
