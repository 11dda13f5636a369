"""The planner: from what is there to the next step of one session. services.converge asks.

`plan` is total and pure: the same observation and time give the same step. Steps are data; what
carries them out is services/converge.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from orchestrator.domain.sandbox import Sandbox, SandboxState
from orchestrator.domain.session import (
    IN_PROGRESS,
    Failure,
    Phase,
    Report,
    Session,
    SessionState,
    Wanted,
)

ATTEMPTS_MAX = 3
_BACKOFF_S = (1.0, 2.0, 4.0)
_LOOK_AGAIN_S = 2.0  # so that a lost nudge costs an unfinished session at most about this much
_WITHDRAWAL_S = 0.5


@dataclass(frozen=True, kw_only=True)
class Observation:
    """All that the planner may look at: the session, its sandbox, and who else waits."""

    session: Session
    sandbox: Sandbox | None  # the one named by session.sandbox_id


@dataclass(frozen=True, kw_only=True)
class Deadlines:
    """How long a state may last, in seconds, before the attempt counts as failed."""

    provisioning_s: float = 30.0
    generating_s: float = 600.0
    deploying_s: float = 60.0


@dataclass(frozen=True, kw_only=True)
class Rest:
    """Nothing to do until `until`, or until a nudge."""

    until: datetime


@dataclass(frozen=True, kw_only=True)
class Done:
    """Nothing to do ever again."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """Get a sandbox: a warm one, or a new one where there is room."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """Create and start the container of a sandbox whose intent is committed."""

    sandbox: Sandbox


@dataclass(frozen=True, kw_only=True)
class Advance:
    """Move the session to where its agent says it is."""

    to: SessionState


@dataclass(frozen=True, kw_only=True)
class Verify:
    """Ask the public URL; READY if it answers."""

    sandbox: Sandbox


@dataclass(frozen=True, kw_only=True)
class Fail:
    """Write down why this attempt came to nothing; clean-up follows."""

    failure: Failure


@dataclass(frozen=True, kw_only=True)
class BeginEnd:
    """Enter DESTROYING."""


@dataclass(frozen=True, kw_only=True)
class Retire:
    """Take the sandbox out of the route table: STOPPING."""

    sandbox: Sandbox
    reason: str


@dataclass(frozen=True, kw_only=True)
class Remove:
    """The withdrawal is confirmed: remove the container, give the slot and the port back."""

    sandbox: Sandbox


@dataclass(frozen=True, kw_only=True)
class Requeue:
    """Back to QUEUED: the next attempt (`burn`), or recovery of what had been READY."""

    burn: bool


@dataclass(frozen=True, kw_only=True)
class Finish:
    """The last move: DESTROYED or FAILED."""

    state: SessionState


Step = (
    Rest
    | Done
    | Claim
    | Start
    | Advance
    | Verify
    | Fail
    | BeginEnd
    | Retire
    | Remove
    | Requeue
    | Finish
)


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
    return _make_progress(seen, now)


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
    if failure.permanent or session.attempt >= ATTEMPTS_MAX:
        return Finish(state=SessionState.FAILED)
    return Requeue(burn=True)


def _keep_running(seen: Observation, now: datetime) -> Step:
    session, report = seen.session, seen.session.report
    if report is not None and report.phase is Phase.FAILED:
        return Fail(failure=_reported(report))
    if _lost(seen.sandbox):
        return _recover(seen, now)
    return Rest(until=session.expires_at)


def _recover(seen: Observation, now: datetime) -> Step:
    if seen.session.bundle is None:
        return Fail(failure=Failure(code="sandbox_lost", message=_lost_message(seen.sandbox)))
    return _clean_up(seen, now) or Requeue(burn=False)


def _make_progress(seen: Observation, now: datetime) -> Step:
    session, sandbox, report = seen.session, seen.sandbox, seen.session.report
    if sandbox is None or _lost(sandbox):
        return Fail(
            failure=Failure(code="sandbox_lost", message=_lost_message(sandbox), permanent=False)
        )
    if report is not None and report.phase is Phase.FAILED:
        return Fail(failure=_reported(report))
    if session.deadline_at is not None and session.deadline_at <= now:
        return Fail(failure=_too_late(session))
    if sandbox.state is SandboxState.CREATING and sandbox.container_id is None:
        return Start(sandbox=sandbox)
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
