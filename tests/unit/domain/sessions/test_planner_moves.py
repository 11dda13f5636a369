"""The planner, case by case: hosts that are drained, away or refusing, and sessions on the move."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from orchestrator.domain.ids import Sha256
from orchestrator.domain.pool.host import Drain, HostState
from orchestrator.domain.pool.sandbox import SandboxState
from orchestrator.domain.sessions import planner, steps
from orchestrator.domain.sessions.planner import Observation
from orchestrator.domain.sessions.session import (
    IN_PROGRESS,
    Failure,
    Move,
    Phase,
    Report,
    Session,
    SessionState,
    Wanted,
)
from tests.fakes import samples
from tests.fakes.samples import NOW, later

SHA = Sha256("b" * 64)
LOST = [SandboxState.BROKEN, SandboxState.STOPPING, SandboxState.GONE]
FAILED = Report(
    seq=1,
    phase=Phase.FAILED,
    progress=0,
    failure=Failure(code="app_not_ready", message="it exited"),
)
REFUSED = Failure(code="create_failed", message="refused", permanent=False, burns=False)


def report(phase: Phase) -> Report:
    return Report(seq=1, phase=phase, progress=50)


def running(
    drain: Drain = Drain.MOVE, box: dict[str, Any] | None = None, **changes: Any
) -> Observation:
    """A READY session on a host that is being drained."""
    host = samples.host(drain=drain)
    fields = {"bundle": SHA, "due_at": NOW, "expires_at": later(9999), **changes}
    session: Session = samples.session(state=SessionState.READY, **fields)
    sandbox = samples.sandbox(
        **{
            "host_id": host.id,
            "state": SandboxState.CLAIMED,
            "session_id": session.id,
            **(box or {}),
        }
    )
    session = replace(session, sandbox_id=sandbox.id, slug=sandbox.slug)
    return Observation(session=session, sandbox=sandbox, host=host)


def moving(
    said: Report | None = None, switched_at: datetime | None = None, **other: Any
) -> Observation:
    """The same, with a second sandbox."""
    seen = running()
    fields = {"state": SandboxState.CLAIMED, "session_id": seen.session.id, **other}
    second = samples.sandbox(**fields)
    move = Move(sandbox_id=second.id, switched_at=switched_at, report=said)
    return replace(seen, session=replace(seen.session, move=move), other=second)


def step(seen: Observation, after_s: float = 0.0) -> steps.Step:
    return planner.plan(seen, later(after_s))


def let_go(seen: Observation, reason: str) -> steps.LetGo:
    return steps.LetGo(sandbox=seen.other, reason=reason)


# Whether to move


def test_a_running_app_moves_from_a_host_that_is_drained() -> None:
    assert step(running()) == steps.Relocate()


def test_a_move_that_found_no_room_waits_until_it_is_due() -> None:
    assert step(running(due_at=later(2))) == steps.Rest(until=later(2))


@pytest.mark.parametrize("drain", [Drain.NONE, Drain.WAIT, Drain.LEAVE])
def test_no_other_drain_moves_an_app(drain: Drain) -> None:
    assert step(running(drain)) == steps.Rest(until=later(9999))


def test_an_app_without_a_bundle_can_not_move() -> None:
    assert step(running(bundle=None)) == steps.Rest(until=later(9999))


@pytest.mark.parametrize("state", sorted(IN_PROGRESS))
def test_what_is_in_progress_gets_ready_where_it_is(state: SessionState) -> None:
    seen = running()
    assert step(replace(seen, session=replace(seen.session, state=state))) == steps.Rest(
        until=later(2)
    )


# On the way


@pytest.mark.parametrize("phase", [None, Phase.GENERATING, Phase.DEPLOYING])
def test_a_move_waits_for_the_app_at_its_other_end(phase: Phase | None) -> None:
    assert step(moving(phase and report(phase))) == steps.Rest(until=later(2))


def test_a_second_sandbox_that_is_an_intent_is_started() -> None:
    seen = moving(state=SandboxState.CREATING, container_id=None, agent_seen_at=None)
    assert seen.other is not None
    assert step(seen) == steps.Start(sandbox=seen.other)


def test_an_app_is_switched_to_once_its_own_route_there_is_live() -> None:
    seen = moving(report(Phase.READY))
    assert seen.other is not None
    assert step(seen) == steps.Switch(sandbox=seen.other)
    assert step(moving(report(Phase.READY), routed=False)) == steps.Rest(until=later(2))


def test_a_drain_that_is_over_does_not_turn_back_who_is_on_the_way() -> None:
    seen = moving(report(Phase.READY))
    assert seen.host is not None
    seen = replace(seen, host=replace(seen.host, drain=Drain.NONE))
    assert isinstance(step(seen), steps.Switch)


@pytest.mark.parametrize("lost", [None, *LOST])
def test_a_move_whose_other_end_is_lost_is_given_up(lost: SandboxState | None) -> None:
    seen = moving(report(Phase.READY), state=lost or SandboxState.CLAIMED, reason="no answer")
    seen = seen if lost else replace(seen, other=None)
    why = "no answer" if lost else "it is gone"
    assert step(seen) == let_go(seen, f"The sandbox was lost: {why}")


def test_a_move_whose_app_gave_up_is_given_up() -> None:
    seen = moving(FAILED)
    assert step(seen) == let_go(seen, "it exited")


@pytest.mark.parametrize("state", [SandboxState.CREATING, SandboxState.CLAIMED])
def test_a_move_has_90_seconds(state: SandboxState) -> None:
    seen = moving(state=state)
    assert step(seen, 90) == steps.Rest(until=later(92))
    assert step(seen, 90.1) == let_go(seen, "the app did not start there in time")


# After the switch


def test_after_the_switch_the_old_place_answers_for_5_seconds_more() -> None:
    seen = moving(switched_at=NOW)
    assert step(seen, 1) == steps.Rest(until=later(5))
    assert step(seen, 5) == let_go(seen, "its session has moved")


def test_the_old_place_is_kept_until_the_new_route_is_live() -> None:
    seen = moving(switched_at=NOW)
    assert seen.sandbox is not None
    pending = replace(seen, sandbox=replace(seen.sandbox, routed=False))
    assert step(pending, 60) == steps.Rest(until=later(60.5))


@pytest.mark.parametrize("lost", [None, *LOST])
def test_an_old_place_that_is_lost_after_the_switch_is_not_waited_for(
    lost: SandboxState | None,
) -> None:
    seen = moving(switched_at=NOW, state=lost or SandboxState.CLAIMED)
    seen = seen if lost else replace(seen, other=None)
    assert step(seen, 1) == let_go(seen, "its session has moved")


# The end, a failure or a loss on the way


@pytest.mark.parametrize("switched_at", [None, NOW])
def test_a_session_that_ends_on_the_way_lets_the_other_place_go_first(
    switched_at: datetime | None,
) -> None:
    seen = moving(switched_at=switched_at)
    seen = replace(seen, session=replace(seen.session, wanted=Wanted.GONE))
    assert step(seen) == steps.BeginEnd()
    ending = replace(seen, session=replace(seen.session, state=SessionState.DESTROYING))
    assert step(ending) == let_go(ending, "its session is to end")
    alone = replace(ending, session=replace(ending.session, move=None), other=None)
    assert isinstance(step(alone), steps.Retire)


@pytest.mark.parametrize("lost", LOST)
def test_an_app_that_is_lost_on_the_way_recovers_with_nothing_beside_it(
    lost: SandboxState,
) -> None:
    seen = moving(report(Phase.READY))
    assert seen.sandbox is not None
    broken = replace(seen, sandbox=replace(seen.sandbox, state=lost))
    assert step(broken) == let_go(broken, "it was lost")


def test_an_app_that_gives_up_on_the_way_fails_with_what_it_said() -> None:
    seen = moving()
    seen = replace(seen, session=replace(seen.session, report=FAILED))
    assert step(seen) == steps.Fail(failure=FAILED.failure)  # type: ignore[arg-type]
    failed = replace(seen, session=replace(seen.session, failure=FAILED.failure))
    assert step(failed) == let_go(failed, "its session failed: app_not_ready")


# Hosts that are away, and hosts that refuse


@pytest.mark.parametrize(
    ("state", "since_s", "fails"),
    [
        (HostState.UP, -15, True),
        (HostState.UP, -14.9, False),
        (HostState.SUSPECT, -99, False),
        (HostState.JOINING, -99, False),
        (HostState.LOST, -99, False),
    ],
)
@pytest.mark.parametrize("progress", sorted(IN_PROGRESS))
def test_a_deadline_does_not_count_while_the_host_is_away_nor_just_after(
    progress: SessionState, state: HostState, since_s: float, fails: bool
) -> None:
    seen = running(Drain.NONE, deadline_at=NOW)
    host = samples.host(state=state, state_since=later(since_s))
    late = replace(seen, session=replace(seen.session, state=progress), host=host)
    assert isinstance(step(late), steps.Fail) is fails
    if not fails:
        assert step(late) == steps.Rest(until=later(2))


@pytest.mark.parametrize("attempt", [1, 2, 3])
def test_a_refusal_that_burns_nothing_is_followed_by_the_same_attempt(attempt: int) -> None:
    session = samples.session(
        state=SessionState.PROVISIONING, failure=REFUSED, attempt=attempt, sandbox_id=None
    )
    seen = Observation(session=session, sandbox=None)
    assert step(seen) == steps.Requeue(attempt=attempt)


def test_a_sandbox_that_was_refused_is_cleared_away_first() -> None:
    seen = running(failure=REFUSED)
    assert seen.sandbox is not None
    assert step(seen) == steps.Retire(
        sandbox=seen.sandbox, reason="its session failed: create_failed"
    )


@pytest.mark.parametrize("routed", [False, True])
def test_what_is_left_on_a_lost_host_goes_the_way_of_all_sandboxes(routed: bool) -> None:
    box = {"state": SandboxState.STOPPING, "routed": routed}
    seen = replace(running(Drain.NONE, box), host=samples.host(state=HostState.LOST))
    assert seen.sandbox is not None
    expected = steps.Rest(until=later(0.5)) if routed else steps.Remove(sandbox=seen.sandbox)
    assert step(seen) == expected
