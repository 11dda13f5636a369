"""Leadership: one at a time, and nobody waits for the dead."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from datetime import timedelta

from orchestrator.entrypoints.lease import LEASE, Lease, has_died, holder_of
from tests.unit.services.conftest import catalog, world
from tests.unit.services.world import World

__all__ = ["catalog", "world"]


def dead() -> str:
    """The holder that a process was which has ended."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    holder = holder_of(child.pid)
    child.communicate()
    return holder


class StoppedMeanwhile(threading.Event):
    """Whoever waits is told to stop."""

    def wait(self, timeout: float | None = None) -> bool:
        del timeout
        self.set()
        return True


def held_by(world: World, holder: str) -> None:
    now = world.clock.now()
    assert world.store.leases.hold(LEASE, holder, now + timedelta(hours=1), now)


def test_a_process_that_lives_has_not_died() -> None:
    assert not has_died(holder_of(os.getpid()))


def test_one_that_ended_has() -> None:
    assert has_died(dead())


def test_one_whose_number_is_used_again_has_died_too() -> None:
    host, place, pid, _ = holder_of(os.getpid()).split(":")
    assert has_died(":".join((host, place, pid, "1")))


def test_of_other_machines_nothing_is_known() -> None:
    host, place, pid, at = dead().split(":")
    assert not has_died(":".join(("elsewhere", place, pid, at)))
    assert not has_died(":".join((host, "another-boot.1", pid, at)))
    assert not has_died("vm:4829")
    assert not has_died("")


def test_nobody_waits_for_a_daemon_that_died_here(world: World) -> None:
    held_by(world, dead())
    lease = Lease(world.deps, threading.Event())
    assert lease.acquire()
    assert world.store.leases.holder(LEASE, world.clock.now()) == holder_of(os.getpid())
    lease.release()
    assert world.store.leases.holder(LEASE, world.clock.now()) is None


def test_one_that_lives_is_waited_for(world: World) -> None:
    living = holder_of(os.getppid())
    held_by(world, living)
    assert not Lease(world.deps, StoppedMeanwhile()).acquire()
    assert world.store.leases.holder(LEASE, world.clock.now()) == living
