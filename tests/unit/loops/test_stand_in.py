"""Looks in the daemon: side by side, one at a time for each session, and none is forgotten."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from orchestrator.domain import errors, ids
from orchestrator.domain.ids import SessionId
from orchestrator.loops.stand_in import StandIn

DEADLINE_S = 20
SLOW, QUICK = ids.new_session_id(), ids.new_session_id()


class Looks:
    """Records looks. Those at SLOW wait until they may end."""

    def __init__(self) -> None:
        self.taken: list[SessionId] = []
        self.at_once = self.most_at_once = 0
        self.may_end = threading.Event()
        self._changed = threading.Condition()

    def __call__(self, session_id: SessionId) -> None:
        with self._changed:
            self.taken.append(session_id)
            self.at_once += session_id == SLOW
            self.most_at_once = max(self.at_once, self.most_at_once)
            self._changed.notify_all()
        if session_id == SLOW:
            self.may_end.wait(DEADLINE_S)
            with self._changed:
                self.at_once -= 1

    def await_taken(self, *session_ids: SessionId) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.taken == list(session_ids), DEADLINE_S), (
                self.taken
            )


@pytest.fixture
def looks() -> Looks:
    return Looks()


@pytest.fixture
def stand_in(looks: Looks) -> Iterator[StandIn]:
    stand_in = StandIn(looks)
    yield stand_in
    looks.may_end.set()
    stand_in.stop()


def test_a_look_that_takes_long_holds_up_no_other_session(stand_in: StandIn, looks: Looks) -> None:
    stand_in.take(SLOW)
    looks.await_taken(SLOW)
    stand_in.take(QUICK)
    looks.await_taken(SLOW, QUICK)


def test_what_changes_during_a_look_leads_to_one_more(stand_in: StandIn, looks: Looks) -> None:
    stand_in.take(SLOW)
    looks.await_taken(SLOW)
    for _ in range(100):
        stand_in.take(SLOW)
    looks.may_end.set()
    looks.await_taken(SLOW, SLOW)
    stand_in.take(QUICK)
    looks.await_taken(SLOW, SLOW, QUICK)
    assert looks.most_at_once == 1


def test_a_look_that_fails_ends_no_thread() -> None:
    taken: list[SessionId] = []
    done = threading.Event()

    def look(session_id: SessionId) -> None:
        taken.append(session_id)
        if len(taken) == 20:
            done.set()
        raise errors.StorageUnavailable("it is away") if len(taken) % 2 else KeyError("bug")

    stand_in = StandIn(look)
    session_ids = [ids.new_session_id() for _ in range(20)]
    for session_id in session_ids:
        stand_in.take(session_id)
    assert done.wait(DEADLINE_S)
    stand_in.stop()
    assert sorted(taken) == sorted(session_ids)


def test_the_daemon_ends_without_the_looks_that_wait() -> None:
    looks = Looks()
    stand_in = StandIn(looks)
    stand_in.take(SLOW)
    looks.await_taken(SLOW)
    stand_in.take(SLOW)
    stopping = threading.Thread(target=stand_in.stop)
    stopping.start()
    looks.may_end.set()
    stopping.join(DEADLINE_S)
    assert not stopping.is_alive()
