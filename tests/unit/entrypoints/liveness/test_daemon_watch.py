"""A loop whose pass never ends ends its daemon, which says where it hangs."""

from __future__ import annotations

import threading

from structlog.testing import capture_logs

from orchestrator.entrypoints.liveness import exits
from orchestrator.entrypoints.liveness.daemon_watch import DaemonWatch
from orchestrator.loops.loop import LoopSpec
from orchestrator.loops.loop_supervisor import LoopSupervisor
from tests.fakes.events import EventsInMemory

LIMIT_S = 100.0
DEADLINE_S = 10


class Hanging:
    """A pass that ends when the test says so."""

    def __init__(self) -> None:
        self.has_begun, self.may_end = threading.Event(), threading.Event()

    def hang_in_here(self) -> str:
        self.has_begun.set()
        assert self.may_end.wait(DEADLINE_S)
        return ""


def watch_for(watch: DaemonWatch, seconds: int, since: float) -> bool:
    """Look each second, from that time on. Returns whether all was well at the end."""
    return all(watch.look(since + second) for second in range(seconds))


def test_a_loop_that_hangs_is_named_with_its_stack_and_ends_the_daemon() -> None:
    hanging, statuses = Hanging(), list[int]()
    specs = [
        LoopSpec(name="sound", every_s=3600, run=lambda: ""),
        LoopSpec(name="sick", every_s=3600, run=hanging.hang_in_here),
    ]
    loops = LoopSupervisor(specs, EventsInMemory())
    watch = DaemonWatch(limit_s=LIMIT_S, loops=loops, exit=statuses.append)

    def until_stopped() -> None:
        assert hanging.has_begun.wait(DEADLINE_S)
        began_at = next(loop.last_sign(0.0) for loop in loops._loops if loop.spec.name == "sick")
        assert watch_for(watch, int(LIMIT_S), began_at)
        with capture_logs() as logs:
            assert not watch.look(began_at + LIMIT_S + 1)
        (entry,) = logs
        assert (entry["event"], entry["loop"]) == ("loop_stuck", "sick")
        assert "hang_in_here" in entry["stack"]
        assert statuses == [exits.STUCK]
        hanging.may_end.set()

    loops.run(until_stopped)
    assert watch_for(watch, 10 * int(LIMIT_S), 1e6), "between its passes no loop is late"


def test_a_loop_may_have_more_patience() -> None:
    hanging, statuses = Hanging(), list[int]()
    spec = LoopSpec(name="slow", every_s=3600, run=hanging.hang_in_here, patience=10)
    loops = LoopSupervisor([spec], EventsInMemory())
    watch = DaemonWatch(limit_s=LIMIT_S, loops=loops, exit=statuses.append)

    def until_stopped() -> None:
        assert hanging.has_begun.wait(DEADLINE_S)
        began_at = loops._loops[0].last_sign(0.0)
        assert watch_for(watch, int(9 * LIMIT_S), began_at)
        hanging.may_end.set()

    loops.run(until_stopped)
    assert statuses == []


def test_links_whose_event_loop_hangs_end_the_daemon() -> None:
    statuses = list[int]()
    watch = DaemonWatch(limit_s=LIMIT_S, links_sign=lambda: 1000.0, exit=statuses.append)
    with capture_logs() as logs:
        assert watch_for(watch, int(LIMIT_S), 1000.0)
        assert not watch.look(1000.0 + LIMIT_S + 1)
    assert statuses == [exits.STUCK]
    assert logs[0]["event"] == "loop_stuck"


def test_a_machine_that_slept_with_a_pass_under_way_loses_no_daemon() -> None:
    statuses = list[int]()
    watch = DaemonWatch(limit_s=LIMIT_S, links_sign=lambda: 1000.0, exit=statuses.append)
    assert watch_for(watch, 10, 1000.0)
    assert watch.look(1000.0 + 8 * 3600)
    assert statuses == []
