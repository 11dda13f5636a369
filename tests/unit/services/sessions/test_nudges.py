"""Nudges: due sessions are nudged, and lost nudges are repeated."""

from __future__ import annotations

from orchestrator.domain import ids
from orchestrator.domain.ids import SessionId
from orchestrator.domain.pool.host import STARTS_AT_ONCE, STARTS_IN_LINE
from orchestrator.domain.pool.sandbox import SandboxState
from orchestrator.domain.sessions.priority import Queue
from orchestrator.domain.sessions.session import SessionState, Wanted
from orchestrator.ports import topics
from orchestrator.services.agents import inbox
from orchestrator.services.sessions import due
from tests.fakes import samples
from tests.fakes.queue import QueueInMemory, QueueThatIsAway
from tests.fakes.samples import later
from tests.unit.services.world import OPERATOR, World


def test_a_lost_nudge_is_repeated(world: World) -> None:
    world.add_host()
    world.queue = QueueThatIsAway()
    session = world.create_session()
    due.nudge_due_sessions(world.deps)
    world.queue = QueueInMemory()
    assert due.nudge_due_sessions(world.deps).nudged == 1
    assert world.queue.nudged == [session.id]


def test_only_as_many_waiting_sessions_are_nudged_as_there_is_room_for(world: World) -> None:
    waiting = [world.create_session() for _ in range(5)]
    world.add_host(slots=2)
    world.queue.nudges.clear()
    assert due.nudge_due_sessions(world.deps).nudged == 2
    assert world.queue.nudged == [session.id for session in waiting[:2]]


def test_without_room_nobody_in_the_queue_is_nudged(world: World) -> None:
    for _ in range(2):
        world.create_session()
    world.queue.nudges.clear()
    due.nudge_due_sessions(world.deps)
    assert world.queue.nudged == []


def test_who_waits_is_nudged_when_a_host_can_begin_another_start(world: World) -> None:
    world.add_host(slots=50)
    line = STARTS_AT_ONCE + STARTS_IN_LINE
    sessions = [world.create_session(OPERATOR) for _ in range(line + 2)]
    for session in sessions:
        world.converge(session)
    assert [world.state(session) for session in sessions] == [
        *[SessionState.PROVISIONING] * line,
        *[SessionState.QUEUED] * 2,
    ]
    world.start_placed()
    world.queue.nudges.clear()
    world.events.sent.clear()
    due.nudge_due_sessions(world.deps)
    assert world.queue.nudged == []

    first = world.sandboxes(SandboxState.CREATING)[0]
    inbox.visit(world.deps, first.id, "")

    assert topics.POOL in world.events.sent
    due.nudge_due_sessions(world.deps)
    assert world.queue.nudged == [sessions[line].id]


def test_all_due_sessions_in_progress_are_nudged_and_come_first(world: World) -> None:
    world.add_host(slots=4)
    busy = [world.create_session() for _ in range(3)]
    for session in busy:
        world.converge(session)
    waiting = world.create_session()
    ending = world.create_session()
    world.request_end(ending)
    world.clock.advance(10)
    world.queue.nudges.clear()
    due.nudge_due_sessions(world.deps)
    assert set(world.queue.nudged[:4]) == {*(session.id for session in busy), ending.id}
    assert world.queue.nudges[4:] == [(waiting.id, Queue.NORMAL)]


def test_a_session_that_is_not_due_or_has_ended_is_not_nudged(world: World) -> None:
    ended, resting = world.create_session(), world.create_session()
    world.request_end(ended)
    world.converge(ended)
    world.save(resting, due_at=later(60))
    world.queue.nudges.clear()
    assert due.nudge_due_sessions(world.deps).nudged == 0


def test_a_session_in_progress_is_not_nudged_again_by_every_event(world: World) -> None:
    world.add_host(slots=4)
    busy = [world.create_session() for _ in range(3)]
    for session in busy:
        world.converge(session)
    world.clock.advance(10)
    recent = due.RecentNudges()
    assert due.nudge_due_sessions(world.deps, recent).nudged == 3
    world.clock.advance(0.1)
    assert due.nudge_due_sessions(world.deps, recent).nudged == 0, (
        "an event so soon does not repeat the nudges"
    )
    world.clock.advance(0.4)
    assert due.nudge_due_sessions(world.deps, recent).nudged == 3, "the loop's interval does"


def test_second_looks_come_after_all_that_is_new(world: World) -> None:
    world.add_host()
    session = world.create_session()
    world.converge(session)
    world.clock.advance(10)
    world.queue.nudges.clear()
    due.nudge_due_sessions(world.deps)
    assert world.queue.nudges == [(session.id, Queue.LOW)]


def test_a_session_at_which_no_worker_looks_is_nudged_ever_more_rarely(world: World) -> None:
    world.add_host()
    session = world.create_session()
    world.converge(session)
    world.clock.advance(10)
    recent = due.RecentNudges()
    world.queue.nudges.clear()
    for _ in range(600):  # a minute of passes
        due.nudge_due_sessions(world.deps, recent)
        world.clock.advance(0.1)
    assert len(world.queue.nudges) == 15

    world.save(session, due_at=world.clock.now())
    assert due.nudge_due_sessions(world.deps, recent).nudged == 1, "a look in between starts anew"


def test_a_waiting_session_is_nudged_by_every_event_while_there_is_room(world: World) -> None:
    first = world.create_session()
    world.add_host(slots=4)
    recent = due.RecentNudges()
    world.queue.nudges.clear()
    for _ in range(3):
        due.nudge_due_sessions(world.deps, recent)
    assert world.queue.nudged == [first.id] * 3


def test_a_session_under_way_at_which_no_worker_looks_is_overdue_after_two_seconds(
    world: World,
) -> None:
    world.add_host()
    session = world.create_session()
    world.converge(session)
    world.clock.advance(10)
    assert _overdue_after(world, 1.9) == []
    assert _overdue_after(world, 2.9) == [session.id]
    world.converge(session)
    world.clock.advance(10)
    assert _overdue_after(world, 1.9) == [], "a look in between starts anew"


def test_a_waiting_session_is_overdue_once_there_has_been_room_for_it_for_two_seconds(
    world: World,
) -> None:
    first, second = world.create_session(), world.create_session()
    recent = due.RecentNudges()
    world.clock.advance(60)
    assert due.nudge_due_sessions(world.deps, recent).overdue == []
    world.add_host(slots=4)
    overdue: list[SessionId] = []
    for _ in range(30):
        world.clock.advance(0.1)
        overdue += due.nudge_due_sessions(world.deps, recent).overdue
    assert set(overdue) == {first.id, second.id}
    assert len(overdue) < 5, "not by every event"


def test_sessions_that_stay_due_never_hide_the_queue(world: World) -> None:
    world.add_host(slots=2)
    for _ in range(120):
        stuck = samples.session(
            user_id=ids.new_user_id(), state=SessionState.DESTROYING, wanted=Wanted.GONE
        )
        world.store.sessions.add(stuck, None, max_active=10**6)
    newcomer = world.create_session()
    recent = due.RecentNudges()
    for _ in range(5):
        world.queue.nudges.clear()
        due.nudge_due_sessions(world.deps, recent)
        assert (newcomer.id, Queue.NORMAL) in world.queue.nudges
        world.clock.advance(0.5)


def _overdue_after(world: World, seconds: float) -> list[SessionId]:
    """The sessions that are overdue at any time within these seconds of passes."""
    recent = due.RecentNudges()
    overdue: set[SessionId] = set()
    for _ in range(int(seconds * 10)):
        overdue |= set(due.nudge_due_sessions(world.deps, recent).overdue)
        world.clock.advance(0.1)
    return sorted(overdue)
