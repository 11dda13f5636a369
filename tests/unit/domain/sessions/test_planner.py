"""The planner, case by case: a state and some facts lead to one step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.contract.health import Condition
from orchestrator.domain.pool.host import HostState
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
from orchestrator.domain.sessions.walks import Walked
from tests.fakes import samples
from tests.fakes.samples import NOW, later

SHA = "b" * 64
DESTROYED = SessionState.DESTROYED
TEMPORARY = Failure(code="provider_unavailable", message="busy", permanent=False)
PERMANENT = Failure(code="app_not_ready", message="it exited")
PROGRESSING = sorted(IN_PROGRESS)
LOST = [SandboxState.BROKEN, SandboxState.STOPPING, SandboxState.GONE]


def report(phase: Phase, failure: Failure | None = None, message: str = "") -> Report:
    return Report(seq=1, phase=phase, progress=50, failure=failure, message=message)


def observe(
    state: SessionState, sandbox_fields: dict[str, Any] | None = None, **changes: Any
) -> tuple[Observation, Sandbox | None]:
    """A session in that state, and its sandbox: a claimed one, changed by `sandbox_fields`."""
    session: Session = samples.session(state=state, **changes)
    if sandbox_fields is None:
        return Observation(session=session, sandbox=None), None
    fields = {"state": SandboxState.CLAIMED, "session_id": session.id, **sandbox_fields}
    sandbox = samples.sandbox(**fields)
    session = replace(session, sandbox_id=sandbox.id, slug=sandbox.slug)
    return Observation(session=session, sandbox=sandbox), sandbox


def step_of(
    state: SessionState, sandbox_fields: dict[str, Any] | None = None, **changes: Any
) -> steps.Step:
    return planner.plan(observe(state, sandbox_fields, **changes)[0], NOW)


def failure_of(step: steps.Step) -> Failure:
    assert isinstance(step, steps.Fail)
    return step.failure


# Sessions that have ended or should end


@pytest.mark.parametrize("wanted", Wanted)
@pytest.mark.parametrize("state", [SessionState.DESTROYED, SessionState.FAILED])
def test_a_session_that_has_ended_needs_nothing(state: SessionState, wanted: Wanted) -> None:
    assert step_of(state, wanted=wanted, failure=TEMPORARY) == steps.Nothing()


@pytest.mark.parametrize("failure", [None, TEMPORARY, PERMANENT])
@pytest.mark.parametrize("state", [SessionState.QUEUED, SessionState.READY, *PROGRESSING])
def test_the_end_comes_before_everything(state: SessionState, failure: Failure | None) -> None:
    for sandbox_fields in (None, {}, {"state": SandboxState.BROKEN}):
        step = step_of(state, sandbox_fields, wanted=Wanted.GONE, failure=failure)
        assert isinstance(step, steps.Destroy)
        assert (step.sandbox is None) == (sandbox_fields is None), "its sandbox goes with it"


@pytest.mark.parametrize(
    "sandbox_fields",
    [{"state": SandboxState.STOPPING}, {"state": SandboxState.GONE}, {"session_id": None}],
)
def test_a_sandbox_that_goes_already_is_left_alone_at_the_end(
    sandbox_fields: dict[str, Any],
) -> None:
    step = step_of(SessionState.READY, sandbox_fields, wanted=Wanted.GONE)
    assert isinstance(step, steps.Destroy)
    assert step.sandbox is None


@pytest.mark.parametrize(
    ("sandbox_fields", "step"),
    [
        (None, steps.Finish(state=DESTROYED)),
        ({"state": SandboxState.GONE}, steps.Finish(state=DESTROYED)),
        ({"state": SandboxState.STOPPING, "session_id": None}, steps.Finish(state=DESTROYED)),
        ({"state": SandboxState.STOPPING, "state_since": NOW}, steps.Wait(until=later(2))),
        ({"state": SandboxState.STOPPING, "state_since": later(-9)}, steps.Wait(until=later(9))),
        ({"state": SandboxState.STOPPING, "state_since": later(-999)}, steps.Wait(until=later(60))),
    ],
)
def test_an_ending_session_looks_ever_more_rarely_until_its_sandbox_is_gone(
    sandbox_fields: dict[str, Any] | None, step: steps.Step
) -> None:
    assert step_of(SessionState.DESTROYING, sandbox_fields, wanted=Wanted.GONE) == step


@pytest.mark.parametrize("routed", [False, True])
@pytest.mark.parametrize(
    "state",
    [SandboxState.CREATING, SandboxState.WARM, SandboxState.CLAIMED, SandboxState.BROKEN],
)
def test_a_session_that_ends_first_retires_its_sandbox(state: SandboxState, routed: bool) -> None:
    observation, sandbox = observe(
        SessionState.DESTROYING, {"state": state, "routed": routed}, wanted=Wanted.GONE
    )
    assert sandbox is not None
    assert planner.plan(observation, NOW) == steps.Retire(
        sandbox=sandbox, reason="its session is to end"
    )


# Failures


@pytest.mark.parametrize("state", [*PROGRESSING, SessionState.READY])
def test_after_a_failure_the_sandbox_is_left_to_the_pool_first(state: SessionState) -> None:
    observation, sandbox = observe(state, {}, failure=TEMPORARY)
    assert sandbox is not None
    assert planner.plan(observation, NOW) == steps.Abandon(
        sandbox=sandbox, reason="its session failed: provider_unavailable"
    )


@pytest.mark.parametrize(
    ("failure", "attempt", "step"),
    [
        (TEMPORARY, 1, steps.Requeue(attempt=2, pause_s=1)),
        (TEMPORARY, 2, steps.Requeue(attempt=3, pause_s=2)),
        (TEMPORARY, 3, steps.Finish(state=SessionState.FAILED)),
        (PERMANENT, 1, steps.Finish(state=SessionState.FAILED)),
    ],
)
def test_three_temporary_failures_or_a_permanent_one_end_a_session(
    failure: Failure, attempt: int, step: steps.Step
) -> None:
    for sandbox_fields in (None, {"state": SandboxState.GONE}):
        state = SessionState.DEPLOYING
        assert step_of(state, sandbox_fields, failure=failure, attempt=attempt) == step


@pytest.mark.parametrize("state", [*PROGRESSING, SessionState.READY])
@pytest.mark.parametrize("reported", [TEMPORARY, PERMANENT, None])
def test_the_failure_is_the_one_that_the_agent_reported(
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
    sandbox_fields = None if lost is None else {"state": lost, "reason": "its container is gone"}
    failure = failure_of(step_of(state, sandbox_fields, report=report(Phase.READY)))
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
    last_report = report(Phase.GENERATING, message="Writing app.js")
    failure = failure_of(step_of(state, {}, deadline_at=NOW, report=last_report))
    assert (failure.code, failure.permanent) == (code, permanent)
    assert failure.message.endswith("in time (last heard: Writing app.js)")
    assert not isinstance(step_of(state, {}, deadline_at=later(0.001)), steps.Fail)


# The queue


@pytest.mark.parametrize(("due", "claims"), [(-5, True), (0, True), (0.001, False)])
def test_a_queued_session_claims_when_it_is_due(due: float, claims: bool) -> None:
    step = step_of(SessionState.QUEUED, due_at=later(due))
    assert step == (steps.Claim() if claims else steps.Wait(until=later(due)))


# Progress


def test_a_session_waits_while_the_daemon_starts_its_sandbox() -> None:
    creating = {"state": SandboxState.CREATING, "container_id": None, "agent_seen_at": None}
    assert step_of(SessionState.PROVISIONING, creating) == steps.Wait(until=later(2))


@pytest.mark.parametrize(
    ("state", "phase", "step"),
    [
        (SessionState.PROVISIONING, None, steps.Wait(until=later(2))),
        (SessionState.GENERATING, None, steps.Wait(until=later(2))),
        (
            SessionState.PROVISIONING,
            Phase.GENERATING,
            steps.Advance(to=SessionState.GENERATING),
        ),
        (SessionState.PROVISIONING, Phase.DEPLOYING, steps.Advance(to=SessionState.DEPLOYING)),
        (SessionState.GENERATING, Phase.GENERATING, steps.Wait(until=later(2))),
        (SessionState.GENERATING, Phase.DEPLOYING, steps.Advance(to=SessionState.DEPLOYING)),
        (SessionState.DEPLOYING, Phase.GENERATING, steps.Wait(until=later(2))),
        (SessionState.DEPLOYING, Phase.DEPLOYING, steps.Wait(until=later(2))),
    ],
)
def test_a_session_follows_its_agent_and_never_back(
    state: SessionState, phase: Phase | None, step: steps.Step
) -> None:
    assert step_of(state, {}, report=phase and report(phase)) == step


@pytest.mark.parametrize("state", PROGRESSING)
@pytest.mark.parametrize("sandbox_state", [SandboxState.CREATING, SandboxState.CLAIMED])
def test_an_app_that_is_ready_is_walked_once_its_route_is_live(
    state: SessionState, sandbox_state: SandboxState
) -> None:
    ready = report(Phase.READY)
    live, sandbox = observe(state, {"state": sandbox_state, "routed": True}, report=ready)
    assert sandbox is not None
    assert planner.plan(live, NOW) == steps.Walk(sandbox=sandbox)
    pending, _ = observe(state, {"state": sandbox_state, "routed": False}, report=ready)
    assert planner.plan(pending, NOW) == steps.Wait(until=later(2))


def judged(state: SessionState, walked: Walked, **fields: Any) -> steps.Step:
    """The step after walks of an app whose agent says that it runs."""
    fields = {"report": report(Phase.READY), "walked": walked, **fields}
    return step_of(state, {"routed": True}, **fields)


@pytest.mark.parametrize("state", PROGRESSING)
@pytest.mark.parametrize("limit_s", [100.0, -1.0])
def test_an_app_that_was_well_at_its_address_is_accepted_even_if_that_was_late(
    state: SessionState, limit_s: float
) -> None:
    walked = Walked(condition=Condition.WELL, at=NOW)
    assert judged(state, walked, deadline_at=later(limit_s)) == steps.Accept()


@pytest.mark.parametrize("state", [SessionState.PROVISIONING, SessionState.GENERATING])
@pytest.mark.parametrize(
    "condition", [None, *(kind for kind in Condition if kind is not Condition.WELL)]
)
def test_an_app_that_runs_and_is_not_seen_to_be_well_at_once_has_the_time_of_a_start(
    state: SessionState, condition: Condition | None
) -> None:
    walked = Walked(condition=condition, at=NOW, failed=0 if condition is None else 1)
    assert judged(state, walked) == steps.Advance(to=SessionState.DEPLOYING)


@pytest.mark.parametrize(
    ("condition", "failed", "overdue_s"),
    [(None, 0, 15.0), (None, 3, 15.0), (Condition.SILENT, 1, 15.3), (Condition.UNWELL, 4, 17.4)],
)
def test_while_walks_go_on_nobody_looks_until_one_is_overdue_or_the_time_is_over(
    condition: Condition | None, failed: int, overdue_s: float
) -> None:
    walked = Walked(condition=condition, at=NOW, failed=failed)
    deploying = SessionState.DEPLOYING
    assert judged(deploying, walked) == steps.Wait(until=later(overdue_s))
    assert judged(deploying, walked, deadline_at=later(3)) == steps.Wait(until=later(3))
    lost = replace(walked, at=later(-overdue_s))
    assert isinstance(judged(deploying, lost), steps.Walk)


def test_an_app_that_stays_unwell_fails_with_what_is_wrong() -> None:
    walked = Walked(condition=Condition.UNWELL, at=NOW, problem="GET / answers 404.", failed=5)
    step = judged(SessionState.DEPLOYING, walked)
    assert isinstance(step, steps.Fail)
    assert step.failure.code == "app_not_healthy"
    assert step.failure.message.endswith("GET / answers 404.")


@pytest.mark.parametrize(
    ("walked", "is_late"),
    [
        (None, False),
        (Walked(condition=None, at=NOW), False),
        (Walked(condition=None, at=NOW, failed=1), True),
        (Walked(condition=Condition.SILENT, at=NOW, failed=1), True),
        (Walked(condition=Condition.UNREACHED, at=NOW, failed=1, unreached_at=NOW), False),
        (Walked(condition=Condition.SILENT, at=NOW, failed=2, unreached_at=later(-19)), False),
        (Walked(condition=Condition.SILENT, at=NOW, failed=2, unreached_at=later(-20)), True),
    ],
    ids=range(7),
)
def test_an_app_that_runs_is_late_only_after_it_was_asked_and_could_be_reached(
    walked: Walked | None, is_late: bool
) -> None:
    fields = {"report": report(Phase.READY), "walked": walked, "deadline_at": later(-1)}
    step = step_of(SessionState.DEPLOYING, {"routed": True}, **fields)
    assert isinstance(step, steps.Fail) is is_late


# Running, and recovery


def test_a_running_app_is_left_alone_until_it_expires() -> None:
    assert step_of(SessionState.READY, {}, expires_at=later(99)) == steps.Wait(until=later(99))


@pytest.mark.parametrize("lost", [None, SandboxState.GONE])
def test_a_lost_app_comes_back_from_its_bundle_and_uses_up_no_attempt(
    lost: SandboxState | None,
) -> None:
    sandbox_fields = None if lost is None else {"state": lost}
    step = step_of(SessionState.READY, sandbox_fields, bundle=SHA, attempt=2)
    assert isinstance(step, steps.Requeue)
    assert (step.attempt, step.pause_s) == (1, 0.0)


@pytest.mark.parametrize("lost", [SandboxState.BROKEN, SandboxState.STOPPING])
def test_a_lost_sandbox_is_left_to_the_pool_before_recovery(lost: SandboxState) -> None:
    observation, sandbox = observe(SessionState.READY, {"state": lost}, bundle=SHA)
    assert sandbox is not None
    assert planner.plan(observation, NOW) == steps.Abandon(sandbox=sandbox, reason="it was lost")


def test_a_broken_sandbox_keeps_its_reason_and_the_recovery_tells_it() -> None:
    fields = {"state": SandboxState.BROKEN, "reason": "its port is closed"}
    observation, sandbox = observe(SessionState.READY, fields, bundle=SHA)
    assert sandbox is not None
    step = planner.plan(observation, NOW)
    assert step == steps.Abandon(sandbox=sandbox, reason="its port is closed")
    fields = {**fields, "state": SandboxState.STOPPING, "session_id": None}
    recovery = step_of(SessionState.READY, fields, bundle=SHA)
    assert isinstance(recovery, steps.Requeue)
    assert recovery.lost == "The sandbox was lost: its port is closed"


# Apps that crash again and again


def lost_again(crashes: int, *, host_changes: dict[str, Any] | None = None) -> Observation:
    """A READY session that the pool has taken a lost sandbox from, after so many crashes."""
    crashed_at = tuple(later(-1000 + number) for number in range(crashes))
    fields = {"state": SandboxState.STOPPING, "session_id": None, "reason": "exit code 137"}
    observation, _ = observe(SessionState.READY, fields, bundle=SHA, crashes=crashed_at)
    return replace(observation, host=samples.host(**(host_changes or {})))


@pytest.mark.parametrize(
    ("crashes", "pause_s"), [(0, 0), (1, 1), (2, 2), (3, 4), (8, 128), (9, 256)]
)
def test_each_recovery_within_an_hour_waits_twice_as_long_as_the_one_before(
    crashes: int, pause_s: float
) -> None:
    step = planner.plan(lost_again(crashes), NOW)
    assert isinstance(step, steps.Requeue)
    assert (step.attempt, step.pause_s) == (1, pause_s)
    assert step.crashes is not None
    assert (len(step.crashes), step.crashes[-1]) == (crashes + 1, NOW)


def test_the_eleventh_crash_within_an_hour_ends_the_session() -> None:
    step = planner.plan(lost_again(10), NOW)
    failure = failure_of(step)
    assert (failure.code, failure.permanent) == ("app_crashed", True)
    assert "11 times within an hour" in failure.message
    assert "exit code 137" in failure.message
    assert isinstance(step, steps.Fail)
    assert step.shows_log


def test_crashes_of_more_than_an_hour_ago_are_forgotten() -> None:
    step = planner.plan(lost_again(10), later(3600))
    assert isinstance(step, steps.Requeue)
    assert (step.pause_s, step.crashes) == (0.0, (later(3600),))


@pytest.mark.parametrize("changes", [{"state": HostState.LOST}, {"generation": 2}])
def test_a_sandbox_that_was_lost_with_its_host_is_no_crash(changes: dict[str, Any]) -> None:
    step = planner.plan(lost_again(10, host_changes=changes), NOW)
    assert isinstance(step, steps.Requeue)
    assert step.crashes is not None
    assert len(step.crashes) == 10


def test_a_sandbox_that_its_host_ended_is_no_crash() -> None:
    observation = lost_again(10)
    assert observation.sandbox is not None
    ended = replace(observation.sandbox, ended_by_host=True)
    step = planner.plan(replace(observation, sandbox=ended), NOW)
    assert isinstance(step, steps.Requeue)
    assert (step.crashes, step.pause_s) == (observation.session.crashes, 256)


@pytest.mark.parametrize(("crashes", "is_cold"), [(0, False), (2, False), (3, True)])
def test_an_app_that_crashed_more_than_twice_gets_no_warm_sandbox(
    crashes: int, is_cold: bool
) -> None:
    session = samples.session(crashes=(NOW,) * crashes)
    assert planner.gets_cold_sandbox(session) is is_cold


@pytest.mark.parametrize("lost", [None, *LOST])
def test_a_lost_app_without_a_bundle_has_failed_for_good(lost: SandboxState | None) -> None:
    sandbox_fields = None if lost is None else {"state": lost}
    failure = failure_of(step_of(SessionState.READY, sandbox_fields))
    assert (failure.code, failure.permanent) == ("sandbox_lost", True)
