"""A bulkhead: whatever hangs or fails costs its own host's threads, and delays only itself."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from orchestrator.domain import errors, ids
from orchestrator.loops.bulkhead import Bulkhead
from tests.fakes.clock import ManualClock

HOST, OTHER_HOST = ids.new_host_id(), ids.new_host_id()
SANDBOX = ids.new_sandbox_id()


class Calls:
    """Holds calls back until `finish`, as if their engines hung."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.pending: list[Callable[[], None]] = []
        self.bulkhead = Bulkhead(self.clock, per_host=2, spawn=self.pending.append)

    def offer(self, sandbox: ids.SandboxId, host: ids.HostId = HOST) -> bool:
        return self.bulkhead.offer(sandbox, host, lambda: None)

    def finish(self) -> None:
        pending, self.pending[:] = list(self.pending), []
        for call in pending:
            call()


@pytest.fixture
def calls() -> Calls:
    return Calls()


def test_a_host_that_hangs_gets_no_more_calls_than_its_share(calls: Calls) -> None:
    assert [calls.offer(ids.new_sandbox_id()) for _ in range(4)] == [True, True, False, False]
    assert calls.offer(ids.new_sandbox_id(), OTHER_HOST), "another host has a share of its own"
    calls.finish()
    assert calls.offer(ids.new_sandbox_id())


def test_a_host_can_get_less_than_its_share_for_a_while(calls: Calls) -> None:
    def offer(at_most: int | None) -> bool:
        return calls.bulkhead.offer(ids.new_sandbox_id(), HOST, lambda: None, at_most=at_most)

    assert [offer(0), offer(1), offer(1)] == [False, True, False]
    calls.clock.advance(2.1)
    assert offer(1), "a call that hangs holds up no other"
    calls.clock.advance(2.1)
    assert not offer(1), "but its share is used up"


def test_one_sandbox_has_one_call_at_a_time(calls: Calls) -> None:
    assert calls.offer(SANDBOX)
    assert calls.bulkhead.is_busy(SANDBOX)
    assert not calls.offer(SANDBOX)
    calls.finish()
    assert not calls.bulkhead.is_busy(SANDBOX)
    assert calls.offer(SANDBOX)


def fail() -> None:
    raise errors.EngineUnavailable("no answer")


def crash() -> None:
    raise ZeroDivisionError


@pytest.mark.parametrize("call", [fail, crash])
def test_a_sandbox_whose_call_fails_backs_off_alone(calls: Calls, call: Callable[[], None]) -> None:
    for pause_s in (1, 2, 4, 8, 16, 30, 30):
        assert calls.bulkhead.offer(SANDBOX, HOST, call)
        calls.finish()
        calls.clock.advance(pause_s - 0.1)
        assert not calls.offer(SANDBOX)
        assert calls.offer(ids.new_sandbox_id())
        calls.finish()
        calls.clock.advance(0.2)
    assert calls.offer(SANDBOX)
    calls.finish()
    assert calls.offer(SANDBOX), "a call that works ends the back-off"


def test_a_failure_long_ago_is_forgotten(calls: Calls) -> None:
    """Most items that fail are sandboxes, which nobody ever asks for again."""
    for pause_s in (1, 2, 4):
        assert calls.bulkhead.offer(SANDBOX, HOST, fail)
        calls.finish()
        calls.clock.advance(pause_s)
    calls.clock.advance(3600)
    assert calls.bulkhead.offer(ids.new_sandbox_id(), HOST, fail)
    assert calls.bulkhead.offer(SANDBOX, HOST, fail)
    calls.finish()
    calls.clock.advance(1)
    assert calls.offer(SANDBOX)


def test_a_sandbox_that_changed_meanwhile_does_not_back_off(calls: Calls) -> None:
    def lose_race() -> None:
        raise errors.StaleWrite("it changed")

    assert calls.bulkhead.offer(SANDBOX, HOST, lose_race)
    calls.finish()
    assert calls.offer(SANDBOX)


def test_at_the_end_no_call_begins_and_those_that_run_are_awaited(calls: Calls) -> None:
    assert calls.offer(SANDBOX)
    assert not calls.bulkhead.stop(timeout_s=0), "one hangs"
    assert not calls.offer(ids.new_sandbox_id())
    ending = threading.Thread(target=lambda: ended.append(calls.bulkhead.stop(timeout_s=20)))
    ended: list[bool] = []
    ending.start()
    calls.finish()
    ending.join()
    assert ended == [True]
