"""The planner: from what is there to the next step of one session. services.converge asks.

`plan` is total and pure: the same observation and time give the same step.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from orchestrator.domain.pool.host import LOST_AFTER, Drain, Host, HostState
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
    BeginEnd,
    Claim,
    Done,
    EndChange,
    Fail,
    Finish,
    LetGo,
    Relocate,
    Remove,
    Requeue,
    Rest,
    Retire,
    Start,
    Step,
    Switch,
    Verify,
)

ATTEMPTS_MAX = 3
CHANGE_TRIES_MAX = 3  # a change that takes its sandbox down with it is not begun for ever
_BACKOFF_S = (1.0, 2.0, 4.0)
_LOOK_AGAIN_S = 2.0  # so that a lost nudge costs an unfinished session at most about this much
_WITHDRAWAL_S = 0.5
_MOVE_MAX = timedelta(seconds=90)  # from the placement of a successor to its app's first answer
# What the old place of a moved app is still given, so that it answers what it was asked before.
_LINGER = timedelta(seconds=5)


@dataclass(frozen=True, kw_only=True)
class Observation:
    """All that the planner may look at: the session, its sandbox, and who else waits."""

    session: Session
    sandbox: Sandbox | None  # the one named by session.sandbox_id
    host: Host | None = None  # the one that this sandbox is on
    other: Sandbox | None = None  # the one named by session.move


@dataclass(frozen=True, kw_only=True)
class Deadlines:
    """How long a state may last, in seconds, before the attempt counts as failed."""

    provisioning_s: float = 30.0
    generating_s: float = 600.0
    deploying_s: float = 60.0


def plan(seen: Observation, now: datetime) -> Step:
    """The next step of this session. The end comes before everything, clean-up before progress."""
    session = seen.session
    if session.ended:
        return Done()
    if session.wanted is Wanted.GONE:
        return _end(seen, now)
    if session.failure is not None:
        return _clean_up(seen, now) or _after_failure(session, session.failure)
    if session.state is SessionState.QUEUED:
        return Claim() if session.due_at <= now else Rest(until=session.due_at)
    if session.state is SessionState.READY:
        return _keep_running(seen, now)
    return _change(seen, now) if session.changing else _make_progress(seen, now)


def backoff_s(attempt: int, spread: float) -> float:
    """Seconds before the attempt after `attempt` (1, 2, ...): 1, 2, 4 and up to half as much again.

    `spread` is a uniform random number in [0, 1): jitter keeps failed sessions from coming back
    all at once.
    """
    base = _BACKOFF_S[min(attempt, len(_BACKOFF_S)) - 1]
    return base * (1 + spread / 2)


def look_again_at(now: datetime) -> datetime:
    """When an unfinished session is overdue if nobody nudged it."""
    return now + timedelta(seconds=_LOOK_AGAIN_S)


def deadline_for(state: SessionState, now: datetime, limits: Deadlines) -> datetime | None:
    """When a state that was entered now has lasted too long; None for states without a limit."""
    seconds = {
        SessionState.PROVISIONING: limits.provisioning_s,
        SessionState.GENERATING: limits.generating_s,
        SessionState.DEPLOYING: limits.deploying_s,
    }.get(state)
    return None if seconds is None else now + timedelta(seconds=seconds)


def _end(seen: Observation, now: datetime) -> Step:
    if seen.session.state is not SessionState.DESTROYING:
        return BeginEnd()
    return _clean_up(seen, now) or Finish(state=SessionState.DESTROYED)


def _clean_up(seen: Observation, now: datetime) -> Step | None:
    if seen.session.move is not None:
        return LetGo(sandbox=seen.other, reason=_why(seen.session))
    sandbox = seen.sandbox
    if sandbox is None or sandbox.state is SandboxState.GONE:
        return None
    if sandbox.state is not SandboxState.STOPPING:
        return Retire(sandbox=sandbox, reason=_why(seen.session))
    if sandbox.routed:
        # The publisher nudges us as soon as the proxy confirmed; its port serves nobody else until.
        return Rest(until=now + timedelta(seconds=_WITHDRAWAL_S))
    return Remove(sandbox=sandbox)


def _after_failure(session: Session, failure: Failure) -> Step:
    if not failure.burns:
        return Requeue(attempt=session.attempt)
    if failure.permanent or session.attempt >= ATTEMPTS_MAX:
        return Finish(state=SessionState.FAILED)
    return Requeue(attempt=session.attempt + 1)


def _keep_running(seen: Observation, now: datetime) -> Step:
    session, report = seen.session, seen.session.report
    if report is not None and report.phase is Phase.FAILED:
        return Fail(failure=_reported(report))
    if _lost(seen.sandbox):
        return _recover(seen, now)
    if session.move is not None:
        return _settle_in(seen, session.move, now) if session.move.switched_at else _go(seen, now)
    is_to_move = seen.host is not None and seen.host.drain is Drain.MOVE
    is_to_move = is_to_move and session.bundle is not None
    if is_to_move and session.due_at <= now:
        return Relocate()
    if session.turns.next is not None:
        return _next_change(session)
    return Rest(until=session.due_at if is_to_move else session.expires_at)


def _next_change(session: Session) -> Step:
    if session.turns.tries < CHANGE_TRIES_MAX:
        return BeginChange()
    message = f"The sandbox was lost {CHANGE_TRIES_MAX} times while this was being done"
    return EndChange(failure=Failure(code="sandbox_lost", message=message))


def _change(seen: Observation, now: datetime) -> Step:
    """Whatever becomes of a change, the version before goes on; it is lost with its sandbox alone,
    and then comes back first."""
    session, report = seen.session, seen.session.report
    if seen.sandbox is None or _lost(seen.sandbox):
        return _recover(seen, now)
    if report is not None and report.phase is Phase.FAILED:
        return EndChange(failure=_reported(report))  # and of the session, for nothing runs there
    if report is not None and report.phase is Phase.READY and report.setback is not None:
        return EndChange(failure=report.setback)
    if session.deadline_at is not None and session.deadline_at <= now and _counts(seen.host, now):
        return EndChange(failure=_too_late(session))
    return _follow(seen, seen.sandbox, now)


def _recover(seen: Observation, now: datetime) -> Step:
    if seen.session.bundle is None:
        return Fail(failure=Failure(code="sandbox_lost", message=_lost_message(seen.sandbox)))
    return _clean_up(seen, now) or Requeue(attempt=1)


def _go(seen: Observation, now: datetime) -> Step:
    """The first half of a move: the app comes up elsewhere while it goes on being served here."""
    move, other = seen.session.move, seen.other
    assert move is not None
    if other is None or _lost(other):
        return LetGo(sandbox=other, reason=_lost_message(other))
    if move.report is not None and move.report.phase is Phase.FAILED:
        return LetGo(sandbox=other, reason=_reported(move.report).message)
    if now - other.state_since > _MOVE_MAX:
        return LetGo(sandbox=other, reason="the app did not start there in time")
    if other.state is SandboxState.CREATING and other.container_id is None:
        return Start(sandbox=other)
    if move.report is not None and move.report.phase is Phase.READY and other.routed:
        return Switch(sandbox=other)
    return Rest(until=look_again_at(now))


def _settle_in(seen: Observation, move: Move, now: datetime) -> Step:
    """The second half: the old place answers what it was asked before, and is let go."""
    assert seen.sandbox is not None
    assert move.switched_at is not None
    if not seen.sandbox.routed:
        return Rest(until=now + timedelta(seconds=_WITHDRAWAL_S))
    if now < move.switched_at + _LINGER and not _lost(seen.other):
        return Rest(until=move.switched_at + _LINGER)
    return LetGo(sandbox=seen.other, reason="its session has moved")


def _make_progress(seen: Observation, now: datetime) -> Step:
    session, sandbox, report = seen.session, seen.sandbox, seen.session.report
    if sandbox is None or _lost(sandbox):
        return Fail(
            failure=Failure(code="sandbox_lost", message=_lost_message(sandbox), permanent=False)
        )
    if report is not None and report.phase is Phase.FAILED:
        return Fail(failure=_reported(report))
    if session.deadline_at is not None and session.deadline_at <= now and _counts(seen.host, now):
        return Fail(failure=_too_late(session))
    if sandbox.state is SandboxState.CREATING and sandbox.container_id is None:
        return Start(sandbox=sandbox)
    return _follow(seen, sandbox, now)


def _follow(seen: Observation, sandbox: Sandbox, now: datetime) -> Step:
    """Go where the agent says that it is."""
    session, report = seen.session, seen.session.report
    if report is None:
        return Rest(until=look_again_at(now))
    if report.phase is Phase.READY:
        # A route that isn't live yet can't be verified; the publisher nudges us when it is.
        return Verify(sandbox=sandbox) if sandbox.routed else Rest(until=look_again_at(now))
    there = _STATE_OF_PHASE[report.phase]
    if there is not session.state and not _is_behind(there, session.state):
        return Advance(to=there)
    return Rest(until=look_again_at(now))


_STATE_OF_PHASE = {
    Phase.GENERATING: SessionState.GENERATING,
    Phase.DEPLOYING: SessionState.DEPLOYING,
}
_FORWARD = (SessionState.PROVISIONING, SessionState.GENERATING, SessionState.DEPLOYING)
assert frozenset(_FORWARD) == IN_PROGRESS


def _counts(host: Host | None, now: datetime) -> bool:
    """Whether lateness on this host means something: not while it is out of reach, nor just after,
    for what was on its way then is still arriving."""
    if host is None:
        return True
    return host.state is HostState.UP and now - host.state_since >= LOST_AFTER


def _is_behind(there: SessionState, here: SessionState) -> bool:
    return _FORWARD.index(there) < _FORWARD.index(here)


def _lost(sandbox: Sandbox | None) -> bool:
    return sandbox is None or sandbox.state in {
        SandboxState.BROKEN,
        SandboxState.STOPPING,
        SandboxState.GONE,
    }


def _lost_message(sandbox: Sandbox | None) -> str:
    reason = sandbox.reason if sandbox is not None and sandbox.reason else "it is gone"
    return f"The sandbox was lost: {reason}"


def _reported(report: Report) -> Failure:
    return report.failure or Failure(code="app_not_ready", message="The app did not start")


def _too_late(session: Session) -> Failure:
    match session.state:
        case SessionState.PROVISIONING:
            code, what, permanent = "sandbox_not_ready", "The sandbox did not answer", False
        case SessionState.GENERATING:
            code, what, permanent = "generation_timeout", "The app was not written", True
        case _:
            code, what, permanent = "app_not_ready", "The app did not answer at its URL", True
    last = session.report.message if session.report is not None else ""
    tail = f" (last heard: {last})" if last else ""
    return Failure(code=code, message=f"{what} in time{tail}", permanent=permanent)


def _why(session: Session) -> str:
    if session.wanted is Wanted.GONE:
        return "its session is to end"
    return f"its session failed: {session.failure.code}" if session.failure else "it was lost"
