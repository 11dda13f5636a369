"""The planner: given what is observed of one session, choose the next step.

`services.sessions.converge` calls `plan` and carries out the step that it returns. `plan` is total
and pure: the same observation and time always give the same step.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from orchestrator.domain.pool.host import Drain, Host, HostState
from orchestrator.domain.pool.host_liveness import LOST_AFTER
from orchestrator.domain.pool.sandbox import Sandbox, SandboxState
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
from orchestrator.domain.sessions.steps import (
    Advance,
    BeginChange,
    Claim,
    Destroy,
    EndChange,
    EndMove,
    Fail,
    Finish,
    Nothing,
    Relocate,
    Remove,
    Requeue,
    Retire,
    Start,
    Step,
    Switch,
    Verify,
    Wait,
)

ATTEMPTS_MAX = 3
CHANGE_TRIES_MAX = 3  # a change that crashes its sandbox is not begun again for ever
_BACKOFF_S = (1.0, 2.0, 4.0)
_RECHECK_S = 2.0  # a lost nudge delays an unfinished session by at most about this much
_ROUTE_RECHECK_S = 0.5  # while the proxy publishes or withdraws a route
_MOVE_MAX = timedelta(seconds=90)  # from the placement of the successor to its app's first answer
# After the switch the old sandbox runs a little longer, to answer the requests it already has.
_LINGER = timedelta(seconds=5)


@dataclass(frozen=True, kw_only=True)
class Observation:
    """Everything the planner may look at."""

    session: Session
    sandbox: Sandbox | None  # the one that session.sandbox_id names
    host: Host | None = None  # the host of that sandbox
    other_sandbox: Sandbox | None = None  # during a move: the one that session.move names


@dataclass(frozen=True, kw_only=True)
class Deadlines:
    """How long a state may last, in seconds, before the attempt counts as failed."""

    provisioning_s: float = 30.0
    generating_s: float = 600.0
    deploying_s: float = 60.0


def plan(observation: Observation, now: datetime) -> Step:
    """Choose the session's next step.

    Order matters: ending the session comes before everything else, clean-up before progress.
    """
    session = observation.session
    if session.ended:
        return Nothing()
    if session.wanted is Wanted.GONE:
        return _destroy(observation, now)
    if session.failure is not None:
        return _clean_up(observation, now) or _retry_or_give_up(session, session.failure)
    if session.state is SessionState.QUEUED:
        return Claim() if session.due_at <= now else Wait(until=session.due_at)
    if session.state is SessionState.READY:
        return _keep_running(observation, now)
    if session.is_changing:
        return _carry_out_change(observation, now)
    return _make_progress(observation, now)


def backoff_s(attempt: int, spread: float) -> float:
    """Seconds to wait after failed attempt number `attempt`: 1, 2 or 4, plus up to half as much.

    `spread` is a uniform random number in [0, 1). The jitter keeps sessions that failed together
    from coming back together.
    """
    base = _BACKOFF_S[min(attempt, len(_BACKOFF_S)) - 1]
    return base * (1 + spread / 2)


def recheck_at(now: datetime) -> datetime:
    """When the nudge loop looks at an unfinished session again, if nobody nudged it before."""
    return now + timedelta(seconds=_RECHECK_S)


def deadline_for(state: SessionState, now: datetime, limits: Deadlines) -> datetime | None:
    """The deadline of a state that is entered now. None: the state has no time limit."""
    seconds = {
        SessionState.PROVISIONING: limits.provisioning_s,
        SessionState.GENERATING: limits.generating_s,
        SessionState.DEPLOYING: limits.deploying_s,
    }.get(state)
    return None if seconds is None else now + timedelta(seconds=seconds)


def _destroy(observation: Observation, now: datetime) -> Step:
    if observation.session.state is not SessionState.DESTROYING:
        return Destroy()
    return _clean_up(observation, now) or Finish(state=SessionState.DESTROYED)


def _clean_up(observation: Observation, now: datetime) -> Step | None:
    """Remove the session's sandboxes. None: both are gone."""
    reason = _clean_up_reason(observation.session)
    if observation.session.move is not None:
        return EndMove(sandbox=observation.other_sandbox, reason=reason)
    sandbox = observation.sandbox
    if sandbox is None or sandbox.state is SandboxState.GONE:
        return None
    if sandbox.state is not SandboxState.STOPPING:
        return Retire(sandbox=sandbox, reason=reason)
    if sandbox.routed:
        # The proxy may still send requests to this port, so the sandbox keeps it. The publisher
        # nudges the session as soon as the proxy confirms that the route is withdrawn.
        return Wait(until=now + timedelta(seconds=_ROUTE_RECHECK_S))
    return Remove(sandbox=sandbox)


def _retry_or_give_up(session: Session, failure: Failure) -> Step:
    if not failure.counts_as_attempt:
        return Requeue(attempt=session.attempt)
    if failure.permanent or session.attempt >= ATTEMPTS_MAX:
        return Finish(state=SessionState.FAILED)
    return Requeue(attempt=session.attempt + 1)


def _keep_running(observation: Observation, now: datetime) -> Step:
    """The session is READY: recover it, move it or begin its next change, if need be."""
    session, host, report = observation.session, observation.host, observation.session.report
    if report is not None and report.phase is Phase.FAILED:
        return Fail(failure=_reported_failure(report))
    if _is_lost(observation.sandbox):
        return _recover(observation, now)
    if session.move is not None:
        return _continue_move(observation, session.move, now)
    must_move = host is not None and host.drain is Drain.MOVE and session.bundle is not None
    if must_move and session.due_at <= now:
        return Relocate()
    if session.turns.next_number is not None:
        return _begin_next_change(session)
    return Wait(until=session.due_at if must_move else session.expires_at)


def _begin_next_change(session: Session) -> Step:
    if session.turns.tries < CHANGE_TRIES_MAX:
        return BeginChange()
    message = f"The sandbox was lost {CHANGE_TRIES_MAX} times while this was being done"
    return EndChange(failure=Failure(code="sandbox_lost", message=message))


def _carry_out_change(observation: Observation, now: datetime) -> Step:
    """A change is under way, while the version before it is still served.

    A change that fails leaves that version running. Only a lost sandbox takes it down: then the
    session recovers first.
    """
    session, report = observation.session, observation.session.report
    if observation.sandbox is None or _is_lost(observation.sandbox):
        return _recover(observation, now)
    if report is not None and report.phase is Phase.FAILED:
        # Nothing runs in the sandbox any more: once the change has ended, the session fails too.
        return EndChange(failure=_reported_failure(report))
    if report is not None and report.phase is Phase.READY and report.setback is not None:
        return EndChange(failure=report.setback)
    if _is_late(observation, now):
        return EndChange(failure=_timeout_failure(session))
    return _follow_agent(session, observation.sandbox, now)


def _recover(observation: Observation, now: datetime) -> Step:
    """The sandbox is lost: start the session's bundle in another one."""
    if observation.session.bundle is None:
        message = _lost_message(observation.sandbox)
        return Fail(failure=Failure(code="sandbox_lost", message=message))
    return _clean_up(observation, now) or Requeue(attempt=1)


def _continue_move(observation: Observation, move: Move, now: datetime) -> Step:
    if move.switched_at is None:
        return _start_successor(observation.other_sandbox, move, now)
    return _finish_move(observation, move.switched_at, now)


def _start_successor(successor: Sandbox | None, move: Move, now: datetime) -> Step:
    """The first half of a move: start the app on the new host. The old one still serves it."""
    report = move.report
    if successor is None or _is_lost(successor):
        return EndMove(sandbox=successor, reason=_lost_message(successor))
    if report is not None and report.phase is Phase.FAILED:
        return EndMove(sandbox=successor, reason=_reported_failure(report).message)
    if now - successor.state_since > _MOVE_MAX:
        return EndMove(sandbox=successor, reason="the app did not start there in time")
    if successor.state is SandboxState.CREATING and successor.container_id is None:
        return Start(sandbox=successor)
    if report is not None and report.phase is Phase.READY and successor.routed:
        return Switch(sandbox=successor)
    return Wait(until=recheck_at(now))


def _finish_move(observation: Observation, switched_at: datetime, now: datetime) -> Step:
    """The second half of a move: the new sandbox serves the app. Release the old one.

    First the proxy must publish the new route. Then the old sandbox lingers for a moment, to
    answer the requests it already has.
    """
    assert observation.sandbox is not None
    predecessor = observation.other_sandbox
    if not observation.sandbox.routed:
        return Wait(until=now + timedelta(seconds=_ROUTE_RECHECK_S))
    if now < switched_at + _LINGER and not _is_lost(predecessor):
        return Wait(until=switched_at + _LINGER)
    return EndMove(sandbox=predecessor, reason="its session has moved")


def _make_progress(observation: Observation, now: datetime) -> Step:
    """An attempt is under way, and no version of the app is served yet."""
    session, sandbox, report = observation.session, observation.sandbox, observation.session.report
    if sandbox is None or _is_lost(sandbox):
        message = _lost_message(sandbox)
        return Fail(failure=Failure(code="sandbox_lost", message=message, permanent=False))
    if report is not None and report.phase is Phase.FAILED:
        return Fail(failure=_reported_failure(report))
    if _is_late(observation, now):
        return Fail(failure=_timeout_failure(session))
    if sandbox.state is SandboxState.CREATING and sandbox.container_id is None:
        return Start(sandbox=sandbox)
    return _follow_agent(session, sandbox, now)


def _follow_agent(session: Session, sandbox: Sandbox, now: datetime) -> Step:
    """Move the session to the phase that its agent reports."""
    report = session.report
    if report is None:
        return Wait(until=recheck_at(now))
    if report.phase is Phase.READY:
        # The URL answers only once the route is live. The publisher nudges the session then.
        return Verify(sandbox=sandbox) if sandbox.routed else Wait(until=recheck_at(now))
    state = _STATE_OF_PHASE[report.phase]
    if _FORWARD.index(state) > _FORWARD.index(session.state):
        return Advance(to=state)
    return Wait(until=recheck_at(now))


_STATE_OF_PHASE = {
    Phase.GENERATING: SessionState.GENERATING,
    Phase.DEPLOYING: SessionState.DEPLOYING,
}
_FORWARD = (SessionState.PROVISIONING, SessionState.GENERATING, SessionState.DEPLOYING)
assert frozenset(_FORWARD) == IN_PROGRESS


def _is_late(observation: Observation, now: datetime) -> bool:
    """Whether the deadline has passed although the agent's reports could reach us.

    While the host is out of reach no report arrives. Just after its return, the reports of that
    time are still arriving. In both cases the deadline is not enforced.
    """
    deadline, host = observation.session.deadline_at, observation.host
    if deadline is None or deadline > now:
        return False
    return host is None or (host.state is HostState.UP and now - host.state_since >= LOST_AFTER)


def _is_lost(sandbox: Sandbox | None) -> bool:
    return sandbox is None or sandbox.state in {
        SandboxState.BROKEN,
        SandboxState.STOPPING,
        SandboxState.GONE,
    }


def _lost_message(sandbox: Sandbox | None) -> str:
    reason = sandbox.reason if sandbox is not None and sandbox.reason else "it is gone"
    return f"The sandbox was lost: {reason}"


def _reported_failure(report: Report) -> Failure:
    return report.failure or Failure(code="app_not_ready", message="The app did not start")


def _timeout_failure(session: Session) -> Failure:
    match session.state:
        case SessionState.PROVISIONING:
            code, problem, permanent = "sandbox_not_ready", "The sandbox did not answer", False
        case SessionState.GENERATING:
            code, problem, permanent = "generation_timeout", "The app was not written", True
        case _:
            code, problem, permanent = "app_not_ready", "The app did not answer at its URL", True
    last_message = session.report.message if session.report is not None else ""
    tail = f" (last heard: {last_message})" if last_message else ""
    return Failure(code=code, message=f"{problem} in time{tail}", permanent=permanent)


def _clean_up_reason(session: Session) -> str:
    if session.wanted is Wanted.GONE:
        return "its session is to end"
    return f"its session failed: {session.failure.code}" if session.failure else "it was lost"
