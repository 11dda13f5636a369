"""All loops together: events wake them, one bug ends them all, and they stop in order."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from orchestrator.domain import ids
from orchestrator.domain.ids import SessionId
from orchestrator.loops.loop import LoopSpec
from orchestrator.loops.loop_supervisor import LoopSupervisor
from tests.fakes.events import EventsInMemory, EventsThatBreak

DEADLINE_S = 10
NEVER_S = 3600.0


class Counter:
    """A pass that counts itself."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.count = 0

    def __call__(self) -> str:
        with self._changed:
            self.count += 1
            self._changed.notify_all()
        return ""

    def reaches(self, count: int, timeout_s: float = DEADLINE_S) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self.count >= count, timeout_s)


def spec(name: str, run: Callable[[], str], *topics: str, every_s: float = NEVER_S) -> LoopSpec:
    return LoopSpec(name=name, every_s=every_s, run=run, topics=topics)


def fail() -> str:
    raise RuntimeError("a bug")


def test_an_event_wakes_the_loops_of_its_topic_and_no_others() -> None:
    events = EventsInMemory()
    on_pool, on_routes = Counter(), Counter()
    loops = LoopSupervisor([spec("a", on_pool, "pool"), spec("b", on_routes, "routes")], events)

    def until_stopped() -> None:
        assert on_pool.reaches(1)
        assert on_routes.reaches(1)
        for _ in range(1000):  # the listener may not be subscribed yet
            events.pool_changed()
            if on_pool.reaches(2, timeout_s=0.01):
                break

    loops.run(until_stopped)
    assert on_pool.count >= 2
    assert on_routes.count == 1


def test_an_urgent_event_wakes_a_loop_that_would_gather_others() -> None:
    events, counter = EventsInMemory(), Counter()
    gathering = LoopSpec(
        name="a",
        every_s=NEVER_S,
        run=counter,
        topics=("routes",),
        urgent=("switches",),
        gather_s=NEVER_S,
    )

    def until_stopped() -> None:
        assert counter.reaches(1)
        for _ in range(1000):  # the listener may not be subscribed yet
            events.routes_changed()
            events.app_switched()
            if counter.reaches(2, timeout_s=0.01):
                break

    LoopSupervisor([gathering], events).run(until_stopped)
    assert counter.count >= 2


def test_all_threads_have_ended_when_run_returns() -> None:
    counter = Counter()
    loops = LoopSupervisor([spec("alone", counter)], EventsInMemory())
    loops.run(lambda: None)
    assert "loop-alone" not in [thread.name for thread in threading.enumerate()]
    assert loops.error is None


def test_a_loop_that_dies_takes_the_daemon_down_with_its_error() -> None:
    counter = Counter()
    loops = LoopSupervisor([spec("sound", counter), spec("sick", fail)], EventsInMemory())
    with pytest.raises(RuntimeError, match="a bug"):
        loops.run(lambda: void(loops.stopping.wait(DEADLINE_S)))
    assert loops.stopping.is_set()
    assert "loop-sound" not in [thread.name for thread in threading.enumerate()]


def test_a_listener_that_dies_takes_the_daemon_down_too() -> None:
    loops = LoopSupervisor([spec("sound", Counter(), "pool")], EventsThatBreak())
    with pytest.raises(ConnectionError):
        loops.run(lambda: void(loops.stopping.wait(DEADLINE_S)))


def test_a_loop_that_dies_wakes_who_waits_for_the_end() -> None:
    stop = threading.Event()
    loops = LoopSupervisor([spec("sick", fail)], EventsInMemory(), stopping=stop)
    with pytest.raises(RuntimeError, match="a bug"):
        loops.run(lambda: void(stop.wait(DEADLINE_S)))
    assert stop.is_set()


def test_of_several_errors_the_first_is_raised() -> None:
    first_died = threading.Event()

    def fail_later() -> str:
        assert first_died.wait(DEADLINE_S)
        raise KeyError("an after-effect")

    loops = LoopSupervisor([spec("sick", fail), spec("other", fail_later)], EventsInMemory())

    def until_stopped() -> None:
        assert loops.stopping.wait(DEADLINE_S)
        first_died.set()

    with pytest.raises(RuntimeError, match="a bug"):
        loops.run(until_stopped)


def test_the_last_loop_still_serves_the_first_while_that_one_stops() -> None:
    """Loops that make sandboxes stop first. They may wait for the publisher, which stops last."""
    published = Counter()
    in_pass, served = threading.Event(), threading.Event()

    def make() -> str:
        in_pass.set()
        assert loops.stopping.wait(DEADLINE_S)
        if published.reaches(published.count + 2):
            served.set()
        return ""

    loops = LoopSupervisor(
        [spec("make", make), spec("publish", published, every_s=0.001)], EventsInMemory()
    )
    loops.run(lambda: void(in_pass.wait(DEADLINE_S)))
    assert served.is_set()


def void(_: object) -> None:
    """For callbacks that return nothing."""


def test_a_session_that_is_due_is_looked_at_and_a_loss_of_events_wakes_the_loop() -> None:
    events, on_due = EventsInMemory(), Counter()
    due: list[SessionId] = []
    session_id = ids.new_session_id()
    loops = LoopSupervisor([spec("nudge", on_due, "due")], events, on_due=due.append)

    def until_stopped() -> None:
        assert on_due.reaches(1)
        for _ in range(1000):  # the listener may not be subscribed yet
            events.session_due(session_id)
            events.send("due")  # some were lost
            if on_due.reaches(2, timeout_s=0.01):
                break

    loops.run(until_stopped)
    assert set(due) == {session_id}
    assert on_due.count >= 2
