"""The planner, case by case: hosts that are drained, away or refuse, and sessions that move."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from orchestrator.contract.health import Condition
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
from orchestrator.domain.sessions.walks import Walked
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
REFUSED = Failure(code="create_failed", message="refused", permanent=False, counts_as_attempt=False)


def report(phase: Phase) -> Report:
    return Report(seq=1, phase=phase, progress=50)


def running(
    drain: Drain = Drain.MOVE, sandbox_fields: dict[str, Any] | None = None, **changes: Any
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
            **(sandbox_fields or {}),
        }
    )
    session = replace(session, sandbox_id=sandbox.id, slug=sandbox.slug)
    return Observation(session=session, sandbox=sandbox, host=host)


def moving(
    other_report: Report | None = None, switched_at: datetime | None = None, **other_fields: Any
) -> Observation:
    """The same, in the middle of a move: with another sandbox."""
    observation = running()
    fields = {"state": SandboxState.CLAIMED, "session_id": observation.session.id, **other_fields}
    other = samples.sandbox(**fields)
    move = Move(sandbox_id=other.id, switched_at=switched_at, report=other_report)
    return replace(
        observation, session=replace(observation.session, move=move), other_sandbox=other
    )


def step(observation: Observation, after_s: float = 0.0) -> steps.Step:
    return planner.plan(observation, later(after_s))


def end_move(observation: Observation, reason: str) -> steps.EndMove:
    return steps.EndMove(sandbox=observation.other_sandbox, reason=reason)


# Whether to move


def test_a_running_app_moves_from_a_host_that_is_drained() -> None:
    assert step(running()) == steps.Relocate()


def test_a_move_that_found_no_room_waits_until_it_is_due() -> None:
    assert step(running(due_at=later(2))) == steps.Wait(until=later(2))


@pytest.mark.parametrize("drain", [Drain.NONE, Drain.WAIT, Drain.LEAVE])
def test_no_other_drain_moves_an_app(drain: Drain) -> None:
    assert step(running(drain)) == steps.Wait(until=later(9999))


def test_an_app_without_a_bundle_can_not_move() -> None:
    assert step(running(bundle=None)) == steps.Wait(until=later(9999))


@pytest.mark.parametrize("state", sorted(IN_PROGRESS))
def test_a_session_that_is_not_ready_yet_does_not_move(state: SessionState) -> None:
    observation = running()
    assert step(
        replace(observation, session=replace(observation.session, state=state))
    ) == steps.Wait(until=later(2))


def walked(observation: Observation, result: Walked) -> Observation:
    return replace(observation, session=replace(observation.session, walked=result))


# On the way


@pytest.mark.parametrize("phase", [None, Phase.GENERATING, Phase.DEPLOYING])
def test_a_move_waits_for_the_app_in_the_new_sandbox(phase: Phase | None) -> None:
    assert step(moving(phase and report(phase))) == steps.Wait(until=later(2))


def test_a_move_waits_while_the_daemon_starts_the_new_sandbox() -> None:
    observation = moving(state=SandboxState.CREATING, container_id=None, agent_seen_at=None)
    assert step(observation) == steps.Wait(until=later(2))


def test_an_app_is_switched_to_once_its_own_route_there_is_live() -> None:
    observation = moving(report(Phase.READY))
    assert observation.other_sandbox is not None
    assert step(observation) == steps.Walk(sandbox=observation.other_sandbox)
    assert step(moving(report(Phase.READY), routed=False)) == steps.Wait(until=later(2))
    well = walked(observation, Walked(condition=Condition.WELL, at=NOW))
    assert step(well) == steps.Switch(sandbox=observation.other_sandbox)
    unwell = walked(observation, Walked(condition=Condition.UNWELL, at=NOW, failed=9))
    assert step(unwell) == steps.Wait(until=later(20)), "it serves on where it is"


def test_a_move_goes_on_after_the_drain_is_over() -> None:
    observation = moving(report(Phase.READY))
    assert observation.host is not None
    observation = replace(observation, host=replace(observation.host, drain=Drain.NONE))
    assert isinstance(step(observation), steps.Walk)


@pytest.mark.parametrize("lost", [None, *LOST])
def test_a_move_whose_new_sandbox_is_lost_is_given_up(lost: SandboxState | None) -> None:
    observation = moving(
        report(Phase.READY), state=lost or SandboxState.CLAIMED, reason="no answer"
    )
    observation = observation if lost else replace(observation, other_sandbox=None)
    reason = "no answer" if lost else "it is gone"
    assert step(observation) == end_move(observation, f"The sandbox was lost: {reason}")


def test_a_move_whose_new_agent_reports_a_failure_is_given_up() -> None:
    observation = moving(FAILED)
    assert step(observation) == end_move(observation, "it exited")


@pytest.mark.parametrize("state", [SandboxState.CREATING, SandboxState.CLAIMED])
def test_a_move_has_90_seconds(state: SandboxState) -> None:
    observation = moving(state=state)
    assert step(observation, 90) == steps.Wait(until=later(92))
    assert step(observation, 90.1) == end_move(observation, "the app did not start there in time")


# After the switch


def test_after_the_switch_the_old_sandbox_runs_for_5_more_seconds() -> None:
    observation = moving(switched_at=NOW)
    assert step(observation, 1) == steps.Wait(until=later(5))
    assert step(observation, 5) == end_move(observation, "its session has moved")


def test_the_old_sandbox_is_kept_until_the_new_route_is_live() -> None:
    observation = moving(switched_at=NOW)
    assert observation.sandbox is not None
    pending = replace(observation, sandbox=replace(observation.sandbox, routed=False))
    assert step(pending, 60) == steps.Wait(until=later(60.5))


@pytest.mark.parametrize("lost", [None, *LOST])
def test_an_old_sandbox_that_is_lost_after_the_switch_is_not_waited_for(
    lost: SandboxState | None,
) -> None:
    observation = moving(switched_at=NOW, state=lost or SandboxState.CLAIMED)
    observation = observation if lost else replace(observation, other_sandbox=None)
    assert step(observation, 1) == end_move(observation, "its session has moved")


# The end, a failure or a loss during a move


@pytest.mark.parametrize("switched_at", [None, NOW])
def test_a_session_that_ends_during_a_move_first_ends_the_move(
    switched_at: datetime | None,
) -> None:
    observation = moving(switched_at=switched_at)
    observation = replace(observation, session=replace(observation.session, wanted=Wanted.GONE))
    assert step(observation) == steps.Destroy(sandbox=None, reason="its session is to end")
    ending = replace(
        observation, session=replace(observation.session, state=SessionState.DESTROYING)
    )
    assert step(ending) == end_move(ending, "its session is to end")
    alone = replace(ending, session=replace(ending.session, move=None), other_sandbox=None)
    assert isinstance(step(alone), steps.Retire)


@pytest.mark.parametrize("lost", LOST)
def test_an_app_that_is_lost_during_a_move_ends_the_move_before_it_recovers(
    lost: SandboxState,
) -> None:
    observation = moving(report(Phase.READY))
    assert observation.sandbox is not None
    broken = replace(observation, sandbox=replace(observation.sandbox, state=lost))
    assert step(broken) == end_move(broken, "it was lost")


def test_an_app_that_fails_during_a_move_fails_the_session() -> None:
    observation = moving()
    observation = replace(observation, session=replace(observation.session, report=FAILED))
    assert step(observation) == steps.Fail(failure=FAILED.failure)  # type: ignore[arg-type]
    failed = replace(observation, session=replace(observation.session, failure=FAILED.failure))
    assert step(failed) == end_move(failed, "its session failed: app_not_ready")


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
    observation = running(Drain.NONE, deadline_at=NOW)
    host = samples.host(state=state, state_since=later(since_s))
    assert observation.sandbox is not None
    late = replace(
        observation,
        session=replace(observation.session, state=progress),
        sandbox=replace(observation.sandbox, agent_seen_at=host.state_since),
        host=host,
    )
    assert isinstance(step(late), steps.Fail) is fails
    if not fails:
        assert step(late) == steps.Wait(until=later(2))


@pytest.mark.parametrize(("heard_s", "fails"), [(-69, True), (-69.1, False), (None, False)])
@pytest.mark.parametrize("progress", sorted(IN_PROGRESS))
def test_a_deadline_counts_on_a_suspect_host_whose_agents_are_heard(
    progress: SessionState, heard_s: float | None, fails: bool
) -> None:
    """Its link works, so it is SUSPECT for another reason. That is not the app's fault."""
    observation = running(Drain.NONE, deadline_at=NOW)
    assert observation.sandbox is not None
    heard_at = None if heard_s is None else later(heard_s)
    late = replace(
        observation,
        session=replace(observation.session, state=progress),
        sandbox=replace(observation.sandbox, agent_seen_at=heard_at),
        host=samples.host(state=HostState.SUSPECT, state_since=later(-99)),
    )
    taken = step(late)
    if not fails:
        assert taken == steps.Wait(until=later(2))
        return
    assert isinstance(taken, steps.Fail)
    assert (taken.failure.permanent, taken.failure.counts_as_attempt) == (False, False)


@pytest.mark.parametrize("attempt", [1, 2, 3])
def test_a_refusal_that_does_not_count_is_followed_by_the_same_attempt(attempt: int) -> None:
    session = samples.session(
        state=SessionState.PROVISIONING, failure=REFUSED, attempt=attempt, sandbox_id=None
    )
    observation = Observation(session=session, sandbox=None)
    assert step(observation) == steps.Requeue(attempt=attempt)


def test_a_sandbox_that_was_refused_is_left_to_the_pool_first() -> None:
    observation = running(failure=REFUSED)
    assert observation.sandbox is not None
    assert step(observation) == steps.Abandon(
        sandbox=observation.sandbox, reason="its session failed: create_failed"
    )
