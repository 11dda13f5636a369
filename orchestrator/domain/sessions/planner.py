"""The planner: given what is observed of one session, choose the next step.

`services.sessions.converge` calls `plan` and carries out the step that it returns. `plan` is total
and pure: the same observation and time always give the same step.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from orchestrator.contract import crashes
from orchestrator.contract.health import Condition
from orchestrator.contract.wire.reports import FailureCode
from orchestrator.domain.pool.host import Drain, Host, HostState
from orchestrator.domain.pool.host_liveness import LOST_AFTER
from orchestrator.domain.pool.sandbox import Sandbox, SandboxState
from orchestrator.domain.sessions import failures, losses, rooms
from orchestrator.domain.sessions.session import (
    IN_PROGRESS,
    Failure,
    Move,
    Phase,
    Session,
    SessionState,
    Wanted,
)
from orchestrator.domain.sessions.steps import (
    Abandon,
    Accept,
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
    Requeue,
    Retire,
    Step,
    Switch,
    Wait,
    Walk,
)

ATTEMPTS_MAX = 3
CHANGE_TRIES_MAX = 3  # a change that crashes its sandbox is not begun again for ever
_BACKOFF_S = (1.0, 2.0, 4.0)
_RECHECK_S = 2.0  # a lost nudge delays an unfinished session by at most about this much
_END_RECHECK_MAX_S = 60.0  # while a sandbox can't be removed
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
        return _let_go(observation) or _retry_or_give_up(observation, session.failure, now)
    if session.state is SessionState.QUEUED:
        return Claim() if session.due_at <= now else Wait(until=session.due_at)
    if session.state is SessionState.READY:
        return _keep_running(observation, now)
    if session.is_changing:
        return _carry_out_change(observation, now)
    return _make_progress(observation, now)


def backoff_s(attempt: int) -> float:
    """Seconds to wait after failed attempt number `attempt`: 1, 2 or 4."""
    return _BACKOFF_S[min(attempt, len(_BACKOFF_S)) - 1]


def spread_out(pause_s: float, spread: float) -> float:
    """The pause, plus up to half as much, so that sessions don't come back together.

    `spread` is a uniform random number in [0, 1).
    """
    return pause_s * (1 + spread / 2)


def gets_cold_sandbox(session: Session) -> bool:
    """Whether its app has crashed so often that it gets no warm sandbox any more."""
    return rooms.gets_no_warm(session.crashes)


def awaits_route(session: Session) -> bool:
    """Whether a route that is live now may be what the session waits for."""
    report = session.report
    return session.move is not None or (report is not None and report.phase is Phase.READY)


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
    """End the session. It is over only when its container is gone, which may take its time."""
    session, sandbox = observation.session, observation.sandbox
    reason = failures.clean_up_reason(session)
    if sandbox is not None and not _is_held(sandbox, session):
        sandbox = None
    if session.state is not SessionState.DESTROYING:
        is_running = sandbox is not None and sandbox.state is not SandboxState.STOPPING
        goes_too = is_running and session.move is None
        return Destroy(sandbox=sandbox if goes_too else None, reason=reason)
    if session.move is not None:
        return EndMove(sandbox=observation.other_sandbox, reason=reason)
    if sandbox is None:
        return Finish(state=SessionState.DESTROYED)
    if sandbox.state is not SandboxState.STOPPING:
        return Retire(sandbox=sandbox, reason=reason)
    # The clear loop removes the container, and nudges the session once that is done. The longer it
    # takes, the more rarely we look.
    waited_s = (now - sandbox.state_since).total_seconds()
    pause_s = min(max(waited_s, _RECHECK_S), _END_RECHECK_MAX_S)
    return Wait(until=now + timedelta(seconds=pause_s))


def _let_go(observation: Observation) -> Step | None:
    """Leave the session's sandboxes to the pool. None: the session has none any more.

    A session that goes on doesn't wait until they are removed: that may take for ever.
    """
    session, sandbox = observation.session, observation.sandbox
    reason = failures.clean_up_reason(session)
    if session.move is not None:
        return EndMove(sandbox=observation.other_sandbox, reason=reason)
    if sandbox is None or not _is_held(sandbox, session):
        return None
    is_broken = sandbox.state is SandboxState.BROKEN and sandbox.reason
    return Abandon(sandbox=sandbox, reason=sandbox.reason if is_broken else reason)


def _is_held(sandbox: Sandbox, session: Session) -> bool:
    """Whether the sandbox still belongs to the session. The pool takes care of it otherwise."""
    return sandbox.session_id == session.id and sandbox.state is not SandboxState.GONE


def _retry_or_give_up(observation: Observation, failure: Failure, now: datetime) -> Step:
    session, lost_on = observation.session, None
    if failure.code in losses.BLAMING:
        lost_on = losses.hosts_after(session, observation.sandbox, now)
    if not failure.counts_as_attempt:
        return Requeue(attempt=session.attempt, lost_on=lost_on)
    if failure.permanent or session.attempt >= ATTEMPTS_MAX:
        return Finish(state=SessionState.FAILED)
    pause_s = backoff_s(session.attempt)
    return Requeue(attempt=session.attempt + 1, pause_s=pause_s, lost_on=lost_on)


def _keep_running(observation: Observation, now: datetime) -> Step:
    """The session is READY: recover it, move it or begin its next change, if need be."""
    session, host, report = observation.session, observation.host, observation.session.report
    if report is not None and report.phase is Phase.FAILED:
        return Fail(failure=failures.reported(report))
    if losses.is_lost(observation.sandbox):
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
    if observation.sandbox is None or losses.is_lost(observation.sandbox):
        return _recover(observation, now)
    if report is not None and report.phase is Phase.FAILED:
        # Nothing runs in the sandbox any more: once the change has ended, the session fails too.
        return EndChange(failure=failures.reported(report))
    if report is not None and report.phase is Phase.READY:
        # It was tried at its public address, and is served: nothing is left to be found out.
        return EndChange(failure=report.setback)
    if _is_late(observation, now):
        return EndChange(failure=failures.timed_out(session, observation.host))
    return _follow_agent(session, observation.sandbox, now)


def _recover(observation: Observation, now: datetime) -> Step:
    """The sandbox is lost: start the session's bundle in another one.

    An app that takes down one sandbox after the other is started ever more rarely, and in the end
    given up.
    """
    session = observation.session
    if session.bundle is None:
        message = losses.message_of(observation.sandbox)
        return Fail(failure=Failure(code="sandbox_lost", message=message))
    crashed_at = losses.crashes_after(session, observation.sandbox, observation.host, now)
    if len(crashed_at) > crashes.RECOVERIES_MAX:
        message = (
            f"The app took down its sandbox {len(crashed_at)} times within an hour."
            f" {losses.message_of(observation.sandbox)}"
        )
        return Fail(
            failure=Failure(code=FailureCode.APP_CRASHED.value, message=message), shows_log=True
        )
    pause_s = crashes.recovery_pause_s(len(crashed_at))
    return _let_go(observation) or Requeue(
        attempt=1,
        pause_s=pause_s,
        crashes=crashed_at,
        lost_on=losses.hosts_after(session, observation.sandbox, now),
        lost=losses.message_of(observation.sandbox),
    )


def _continue_move(observation: Observation, move: Move, now: datetime) -> Step:
    if move.switched_at is None:
        return _start_successor(observation, move, now)
    return _finish_move(observation, move.switched_at, now)


def _start_successor(observation: Observation, move: Move, now: datetime) -> Step:
    """The first half of a move: start the app on the new host. The old one still serves it."""
    session, successor, report = observation.session, observation.other_sandbox, move.report
    if successor is None or losses.is_lost(successor):
        return EndMove(sandbox=successor, reason=losses.message_of(successor))
    if report is not None and report.phase is Phase.FAILED:
        return EndMove(sandbox=successor, reason=failures.reported(report).message)
    if now - successor.state_since > _MOVE_MAX:
        return EndMove(sandbox=successor, reason="the app did not start there in time")
    if report is not None and report.phase is Phase.READY and successor.routed:
        return _judge_walks(session, successor, now, Switch(sandbox=successor))
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
    if now < switched_at + _LINGER and not losses.is_lost(predecessor):
        return Wait(until=switched_at + _LINGER)
    return EndMove(sandbox=predecessor, reason="its session has moved")


def _make_progress(observation: Observation, now: datetime) -> Step:
    """An attempt is under way, and no version of the app is served yet."""
    session, sandbox, report = observation.session, observation.sandbox, observation.session.report
    if sandbox is None or losses.is_lost(sandbox):
        message = losses.message_of(sandbox)
        return Fail(failure=Failure(code="sandbox_lost", message=message, permanent=False))
    if report is not None and report.phase is Phase.FAILED:
        return Fail(failure=failures.reported(report))
    if _is_late(observation, now):
        return Fail(failure=failures.timed_out(session, observation.host))
    return _follow_agent(session, sandbox, now)


def _follow_agent(session: Session, sandbox: Sandbox, now: datetime) -> Step:
    """Move the session to the phase that its agent reports."""
    report = session.report
    if report is None:
        return Wait(until=recheck_at(now))
    if report.phase is Phase.READY:
        # The URL answers only once the route is live. The publisher nudges the session then.
        if not sandbox.routed:
            return Wait(until=recheck_at(now))
        return _judge_walks(session, sandbox, now, Accept())
    state = _STATE_OF_PHASE[report.phase]
    if _FORWARD.index(state) > _FORWARD.index(session.state):
        return Advance(to=state)
    return Wait(until=recheck_at(now))


def _judge_walks(session: Session, sandbox: Sandbox, now: datetime, accept: Step) -> Step:
    """What the walks of the sandbox's public address call for: `accept`, once the app is well.

    While a session moves, its app serves on where it was: nothing is given up then.
    """
    walked = session.walked
    if walked is None:
        return Walk(sandbox=sandbox)
    if walked.condition is Condition.WELL:
        return accept
    if session.state in IN_PROGRESS:
        if walked.is_given_up:
            message = f"At its public address, the app isn't well: {walked.problem}"
            return Fail(failure=Failure(code=FailureCode.APP_NOT_HEALTHY.value, message=message))
        if session.state is not SessionState.DEPLOYING:
            return Advance(to=SessionState.DEPLOYING)  # an app that runs has the time of this
    if walked.overdue_at <= now:
        return Walk(sandbox=sandbox)
    limit_at = session.deadline_at
    is_sooner = limit_at is not None and now < limit_at < walked.overdue_at
    return Wait(until=limit_at if limit_at is not None and is_sooner else walked.overdue_at)


_STATE_OF_PHASE = {
    Phase.GENERATING: SessionState.GENERATING,
    Phase.DEPLOYING: SessionState.DEPLOYING,
}
_FORWARD = (SessionState.PROVISIONING, SessionState.GENERATING, SessionState.DEPLOYING)
assert frozenset(_FORWARD) == IN_PROGRESS


def _is_late(observation: Observation, now: datetime) -> bool:
    """Whether the deadline has passed although the agent's reports could reach us.

    Not while the host is out of reach, nor just after: the reports of that time are still arriving.
    And an app that runs is asked once, however long the proxy took to publish its route.
    """
    session, host, sandbox = observation.session, observation.host, observation.sandbox
    if session.deadline_at is None or session.deadline_at > now:
        return False
    if session.report is not None and session.report.phase is Phase.READY:
        walked = session.walked
        if walked is None or walked.is_first or walked.condition is Condition.WELL:
            return False
        if walked.not_late_before is not None and walked.not_late_before > now:
            return False
    if host is None or host.state is HostState.UP:
        return host is None or now - host.state_since >= LOST_AFTER
    # It isn't SUSPECT for its link: without one it would be LOST before its agents are heard again.
    if host.state is not HostState.SUSPECT or sandbox is None or sandbox.agent_seen_at is None:
        return False
    return sandbox.agent_seen_at - host.state_since >= 2 * LOST_AFTER
