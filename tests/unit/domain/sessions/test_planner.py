"""The planner, case by case: a state and some facts give one step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.domain.pool.sandbox import Sandbox, SandboxState
from orchestrator.domain.sessions import planner, steps
from orchestrator.domain.sessions.planner import Observation
from orchestrator.domain.sessions.session import (
    IN_PROGRESS,
    Failure,
    Phase,
    Report,
    Session,
    SessionState,
    Wanted,
)
from tests.fakes import samples
from tests.fakes.samples import NOW, later

SHA = "b" * 64
TEMPORARY = Failure(code="provider_unavailable", message="busy", permanent=False)
PERMANENT = Failure(code="app_not_ready", message="it exited")
PROGRESSING = sorted(IN_PROGRESS)
LOST = [SandboxState.BROKEN, SandboxState.STOPPING, SandboxState.GONE]


def report(phase: Phase, failure: Failure | None = None, message: str = "") -> Report:
    return Report(seq=1, phase=phase, progress=50, failure=failure, message=message)


def seen(
    state: SessionState, box: dict[str, Any] | None = None, **changes: Any
) -> tuple[Observation, Sandbox | None]:
    """A session in that state, and its sandbox: a claimed one, unless `box` says otherwise."""
    session: Session = samples.session(state=state, **changes)
    if box is None:
        return Observation(session=session, sandbox=None), None
    fields = {"state": SandboxState.CLAIMED, "session_id": session.id, **box}
    sandbox = samples.sandbox(**fields)
    session = replace(session, sandbox_id=sandbox.id, slug=sandbox.slug)
    return Observation(session=session, sandbox=sandbox), sandbox


def step_of(state: SessionState, box: dict[str, Any] | None = None, **changes: Any) -> steps.Step:
    return planner.plan(seen(state, box, **changes)[0], NOW)


def failure_of(step: steps.Step) -> Failure:
    assert isinstance(step, steps.Fail)
    return step.failure


# What has ended, what is to end


@pytest.mark.parametrize("wanted", Wanted)
@pytest.mark.parametrize("state", [SessionState.DESTROYED, SessionState.FAILED])
def test_what_has_ended_needs_nothing(state: SessionState, wanted: Wanted) -> None:
    assert step_of(state, wanted=wanted, failure=TEMPORARY) == steps.Done()


@pytest.mark.parametrize("failure", [None, TEMPORARY, PERMANENT])
@pytest.mark.parametrize("state", [SessionState.QUEUED, SessionState.READY, *PROGRESSING])
def test_the_end_comes_before_everything(state: SessionState, failure: Failure | None) -> None:
    for box in (None, {}, {"state": SandboxState.BROKEN}):
        assert step_of(state, box, wanted=Wanted.GONE, failure=failure) == steps.BeginEnd()


@pytest.mark.parametrize(
    ("box", "step"),
    [
        (None, steps.Finish(state=SessionState.DESTROYED)),
        ({"state": SandboxState.GONE}, steps.Finish(state=SessionState.DESTROYED)),
        ({"state": SandboxState.STOPPING, "routed": True}, steps.Rest(until=later(0.5))),
    ],
)
def test_an_ending_session_finishes_when_its_sandbox_is_gone(
    box: dict[str, Any] | None, step: steps.Step
) -> None:
    assert step_of(SessionState.DESTROYING, box, wanted=Wanted.GONE) == step


@pytest.mark.parametrize("routed", [False, True])
@pytest.mark.parametrize(
    "state",
    [SandboxState.CREATING, SandboxState.WARM, SandboxState.CLAIMED, SandboxState.BROKEN],
)
def test_an_ending_session_first_takes_its_sandbox_out_of_the_routes(
    state: SandboxState, routed: bool
) -> None:
    observation, sandbox = seen(
        SessionState.DESTROYING, {"state": state, "routed": routed}, wanted=Wanted.GONE
    )
    assert sandbox is not None
    assert planner.plan(observation, NOW) == steps.Retire(
        sandbox=sandbox, reason="its session is to end"
    )


def test_a_sandbox_is_removed_only_after_its_withdrawal_was_confirmed() -> None:
    stopping = {"state": SandboxState.STOPPING, "routed": False}
    observation, sandbox = seen(SessionState.DESTROYING, stopping, wanted=Wanted.GONE)
    assert sandbox is not None
    assert planner.plan(observation, NOW) == steps.Remove(sandbox=sandbox)


# Failures


@pytest.mark.parametrize("state", [*PROGRESSING, SessionState.READY])
def test_after_a_failure_clean_up_comes_first(state: SessionState) -> None:
    observation, sandbox = seen(state, {}, failure=TEMPORARY)
    assert sandbox is not None
    assert planner.plan(observation, NOW) == steps.Retire(
        sandbox=sandbox, reason="its session failed: provider_unavailable"
    )


@pytest.mark.parametrize(
    ("failure", "attempt", "step"),
    [
        (TEMPORARY, 1, steps.Requeue(attempt=2)),
        (TEMPORARY, 2, steps.Requeue(attempt=3)),
        (TEMPORARY, 3, steps.Finish(state=SessionState.FAILED)),
        (PERMANENT, 1, steps.Finish(state=SessionState.FAILED)),
    ],
)
def test_three_temporary_failures_or_a_permanent_one_end_a_session(
    failure: Failure, attempt: int, step: steps.Step
) -> None:
    for box in (None, {"state": SandboxState.GONE}):
        state = SessionState.DEPLOYING
        assert step_of(state, box, failure=failure, attempt=attempt) == step


@pytest.mark.parametrize("state", [*PROGRESSING, SessionState.READY])
@pytest.mark.parametrize("reported", [TEMPORARY, PERMANENT, None])
def test_what_the_agent_gave_up_for_is_the_failure(
    state: SessionState, reported: Failure | None
) -> None:
    failure = failure_of(step_of(state, {}, report=report(Phase.FAILED, reported)))
    assert failure == (reported or failure)
    assert failure.code == (reported.code if reported else "app_not_ready")


@pytest.mark.parametrize("state", PROGRESSING)
@pytest.mark.parametrize("lost", [None, *LOST])
def test_an_attempt_whose_sandbox_is_lost_may_be_repeated(
    state: SessionState, lost: SandboxState | None
) -> None:
    box = None if lost is None else {"state": lost, "reason": "its container is gone"}
    failure = failure_of(step_of(state, box, report=report(Phase.READY)))
    assert (failure.code, failure.permanent) == ("sandbox_lost", False)
    assert ("its container is gone" in failure.message) == (lost is not None)


@pytest.mark.parametrize(
    ("state", "code", "permanent"),
    [
        (SessionState.PROVISIONING, "sandbox_not_ready", False),
        (SessionState.GENERATING, "generation_timeout", True),
        (SessionState.DEPLOYING, "app_not_ready", True),
    ],
)
def test_a_state_that_lasts_too_long_fails_the_attempt(
    state: SessionState, code: str, permanent: bool
) -> None:
    heard = report(Phase.GENERATING, message="Writing app.js")
    failure = failure_of(step_of(state, {}, deadline_at=NOW, report=heard))
    assert (failure.code, failure.permanent) == (code, permanent)
    assert failure.message.endswith("in time (last heard: Writing app.js)")
    assert not isinstance(step_of(state, {}, deadline_at=later(0.001)), steps.Fail)


# The queue


@pytest.mark.parametrize(("due", "claims"), [(-5, True), (0, True), (0.001, False)])
def test_a_queued_session_claims_when_it_is_due(due: float, claims: bool) -> None:
    step = step_of(SessionState.QUEUED, due_at=later(due))
    assert step == (steps.Claim() if claims else steps.Rest(until=later(due)))


# Progress


def test_a_committed_intent_is_started() -> None:
    creating = {"state": SandboxState.CREATING, "container_id": None, "agent_seen_at": None}
    observation, sandbox = seen(SessionState.PROVISIONING, creating)
    assert sandbox is not None
    assert planner.plan(observation, NOW) == steps.Start(sandbox=sandbox)


@pytest.mark.parametrize(
    ("state", "phase", "step"),
    [
        (SessionState.PROVISIONING, None, steps.Rest(until=later(2))),
        (SessionState.GENERATING, None, steps.Rest(until=later(2))),
        (
            SessionState.PROVISIONING,
            Phase.GENERATING,
            steps.Advance(to=SessionState.GENERATING),
        ),
        (SessionState.PROVISIONING, Phase.DEPLOYING, steps.Advance(to=SessionState.DEPLOYING)),
        (SessionState.GENERATING, Phase.GENERATING, steps.Rest(until=later(2))),
        (SessionState.GENERATING, Phase.DEPLOYING, steps.Advance(to=SessionState.DEPLOYING)),
        (SessionState.DEPLOYING, Phase.GENERATING, steps.Rest(until=later(2))),
        (SessionState.DEPLOYING, Phase.DEPLOYING, steps.Rest(until=later(2))),
    ],
)
def test_a_session_follows_its_agent_and_never_back(
    state: SessionState, phase: Phase | None, step: steps.Step
) -> None:
    assert step_of(state, {}, report=phase and report(phase)) == step


@pytest.mark.parametrize("state", PROGRESSING)
@pytest.mark.parametrize("box", [SandboxState.CREATING, SandboxState.CLAIMED])
def test_an_app_that_is_ready_is_verified_once_its_route_is_live(
    state: SessionState, box: SandboxState
) -> None:
    ready = report(Phase.READY)
    live, sandbox = seen(state, {"state": box, "routed": True}, report=ready)
    assert sandbox is not None
    assert planner.plan(live, NOW) == steps.Verify(sandbox=sandbox)
    pending, _ = seen(state, {"state": box, "routed": False}, report=ready)
    assert planner.plan(pending, NOW) == steps.Rest(until=later(2))


# Running, and recovery


def test_a_running_app_is_left_alone_until_it_expires() -> None:
    assert step_of(SessionState.READY, {}, expires_at=later(99)) == steps.Rest(until=later(99))


@pytest.mark.parametrize("lost", [None, SandboxState.GONE])
def test_a_lost_app_comes_back_from_its_bundle_without_burning_an_attempt(
    lost: SandboxState | None,
) -> None:
    box = None if lost is None else {"state": lost}
    assert step_of(SessionState.READY, box, bundle=SHA, attempt=2) == steps.Requeue(attempt=1)


def test_a_broken_sandbox_is_cleared_away_before_recovery() -> None:
    observation, sandbox = seen(SessionState.READY, {"state": SandboxState.BROKEN}, bundle=SHA)
    assert sandbox is not None
    assert planner.plan(observation, NOW) == steps.Retire(sandbox=sandbox, reason="it was lost")


@pytest.mark.parametrize("lost", [None, *LOST])
def test_a_lost_app_without_a_bundle_has_failed_for_good(lost: SandboxState | None) -> None:
    box = None if lost is None else {"state": lost}
    failure = failure_of(step_of(SessionState.READY, box))
    assert (failure.code, failure.permanent) == ("sandbox_lost", True)
