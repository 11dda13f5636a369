"""Nudges of a process that takes looks itself: the first ones here, and what is more elsewhere."""

from __future__ import annotations

import threading

import pytest

from orchestrator.domain import ids
from orchestrator.domain.ids import SessionId
from orchestrator.domain.sessions.priority import Queue
from orchestrator.domain.sessions.session import SessionState
from orchestrator.loops import near_looks
from orchestrator.loops.near_looks import NearLooks
from orchestrator.loops.stand_in import StandIn
from orchestrator.services.deps import Deps
from orchestrator.services.sessions import requests
from orchestrator.services.sessions.looks import look
from tests.fakes.queue import QueueInMemory
from tests.fakes.threads import wait_until
from tests.unit.services.world import VISITOR, World

DEADLINE_S = 20
FIRST, SECOND = ids.new_session_id(), ids.new_session_id()


class HeldLooks:
    """Looks that wait until they may end."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.may_end = threading.Semaphore(0)
        self.taken: list[SessionId] = []

    def __call__(self, session_id: SessionId) -> None:
        self.taken.append(session_id)
        self.begun.release()
        assert self.may_end.acquire(timeout=DEADLINE_S)


def test_while_the_hand_is_busy_others_go_to_the_workers() -> None:
    looks, far = HeldLooks(), QueueInMemory()
    near = NearLooks(far, StandIn(looks, hands=1))
    near.nudge(FIRST, Queue.NORMAL)
    assert looks.begun.acquire(timeout=DEADLINE_S)
    near.nudge(SECOND, Queue.HIGH)
    assert far.nudges == [(SECOND, Queue.HIGH)]
    looks.may_end.release()
    near.stop()
    assert looks.taken == [FIRST]


def test_news_of_the_session_at_hand_lead_to_one_more_look_at_it() -> None:
    looks, far = HeldLooks(), QueueInMemory()
    near = NearLooks(far, StandIn(looks, hands=1))
    near.nudge(FIRST, Queue.NORMAL)
    assert looks.begun.acquire(timeout=DEADLINE_S)
    near.nudge(FIRST, Queue.CRITICAL)
    near.nudge(FIRST, Queue.CRITICAL)
    looks.may_end.release()
    assert looks.begun.acquire(timeout=DEADLINE_S)
    looks.may_end.release()
    near.stop()
    assert looks.taken == [FIRST, FIRST]
    assert far.nudges == []


def test_after_the_end_all_nudges_go_to_the_workers() -> None:
    looks, far = HeldLooks(), QueueInMemory()
    near = NearLooks(far, StandIn(looks, hands=1))
    near.stop()
    near.nudge(FIRST, Queue.LOW)
    assert (looks.taken, far.nudged) == ([], [FIRST])


def test_a_look_that_waits_at_the_end_goes_to_the_workers() -> None:
    looks, far = HeldLooks(), QueueInMemory()
    near = NearLooks(far, stand_in := StandIn(looks, hands=1))
    near.nudge(FIRST, Queue.NORMAL)
    assert looks.begun.acquire(timeout=DEADLINE_S)
    near.nudge(FIRST, Queue.NORMAL)
    stopping = threading.Thread(target=near.stop)
    stopping.start()
    wait_until(lambda: stand_in._is_stopped)
    looks.may_end.release()
    stopping.join(DEADLINE_S)
    assert (looks.taken, far.nudged) == ([FIRST], [FIRST])


def test_a_request_claims_a_warm_sandbox_without_a_worker(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.add_host()
    warm = world.add_warm_sandbox()
    looked = threading.Event()

    def look_and_tell(deps: Deps, session_id: SessionId) -> None:
        look(deps, session_id)
        looked.set()

    monkeypatch.setattr(near_looks, "look", look_and_tell)
    deps, near = near_looks.taking_looks(world.deps)
    session = requests.create(
        deps, VISITOR, requests.Request(prompt="", template="kanban", ttl_s=None)
    )
    assert looked.wait(DEADLINE_S)
    near.stop()
    claimed = world.session(session)
    assert (claimed.state, claimed.sandbox_id) == (SessionState.PROVISIONING, warm.id)
    assert world.queue.nudges == []
