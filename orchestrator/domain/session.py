"""The Session: what a user asked for, its state machine, and what a person sees of it."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from orchestrator.domain import errors
from orchestrator.domain.host import Wish
from orchestrator.domain.ids import HostId, SandboxId, SessionId, Sha256, Slug, UserId
from orchestrator.domain.turns import Turns


class SessionState(enum.StrEnum):
    """Where a session is. Moved by converge alone."""

    QUEUED = "queued"  # admitted; waits for a sandbox, or for its next attempt
    PROVISIONING = "provisioning"  # has a sandbox; its agent has not reported yet
    GENERATING = "generating"  # the agent is having the app written
    DEPLOYING = "deploying"  # the app is being started
    READY = "ready"  # the public URL answered
    DESTROYING = "destroying"  # wanted is GONE; clean-up is under way
    DESTROYED = "destroyed"  # nothing of it is left but its record and its archived bundle
    FAILED = "failed"  # gave up, after clean-up; failure says why


class Wanted(enum.StrEnum):
    """What should become of a session. All that API, reaper and operator may set."""

    RUNNING = "running"  # until its time is up
    GONE = "gone"  # from now on; there is no way back


class Phase(enum.StrEnum):
    """What an agent says it is doing."""

    GENERATING = "generating"  # the app is being written
    DEPLOYING = "deploying"  # the app is being started
    READY = "ready"  # the app answered inside the sandbox
    FAILED = "failed"  # the agent gave up; the report carries the failure


class Tier(enum.StrEnum):
    """Who pays: decides limits and the queue's order."""

    FREE = "free"  # anonymous visitors, and keys without a plan
    PRO = "pro"  # paying users
    OPERATOR = "operator"  # the people who run the pool


TRANSITIONS: Mapping[SessionState, frozenset[SessionState]] = {
    SessionState.QUEUED: frozenset(
        {SessionState.PROVISIONING, SessionState.DESTROYING, SessionState.FAILED}
    ),
    SessionState.PROVISIONING: frozenset(
        {
            SessionState.GENERATING,
            SessionState.DEPLOYING,
            SessionState.READY,
            SessionState.QUEUED,
            SessionState.DESTROYING,
            SessionState.FAILED,
        }
    ),
    SessionState.GENERATING: frozenset(
        {
            SessionState.DEPLOYING,
            SessionState.READY,
            SessionState.QUEUED,
            SessionState.DESTROYING,
            SessionState.FAILED,
        }
    ),
    SessionState.DEPLOYING: frozenset(
        {
            SessionState.READY,
            SessionState.QUEUED,
            SessionState.DESTROYING,
            SessionState.FAILED,
        }
    ),
    # READY -> QUEUED is recovery: the sandbox was lost, the bundle starts elsewhere, same URL.
    # READY -> GENERATING or DEPLOYING is a change, while the version before goes on being served.
    SessionState.READY: frozenset(
        {
            SessionState.GENERATING,
            SessionState.DEPLOYING,
            SessionState.QUEUED,
            SessionState.DESTROYING,
            SessionState.FAILED,
        }
    ),
    SessionState.DESTROYING: frozenset({SessionState.DESTROYED}),
    SessionState.DESTROYED: frozenset(),
    SessionState.FAILED: frozenset(),
}

ENDED = frozenset({SessionState.DESTROYED, SessionState.FAILED})
IN_PROGRESS = frozenset(
    {SessionState.PROVISIONING, SessionState.GENERATING, SessionState.DEPLOYING}
)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why an attempt, or a session, came to nothing."""

    code: str  # stable, for programs
    message: str  # for people; app failures end with the last log lines
    permanent: bool = True  # False: the next attempt may work
    burns: bool = True  # False: it was the host's doing, and another host may have it at once


@dataclass(frozen=True, kw_only=True)
class Report:
    """The last thing this attempt's agent said. A fact, not a state."""

    seq: int  # grows with every report of one attempt; older ones are dropped
    phase: Phase
    progress: int  # 0..100 as the agent sees it
    message: str = ""  # for people
    failure: Failure | None = None  # with phase FAILED alone
    summary: str = ""  # with phase READY: what the model says that it did
    setback: Failure | None = None  # with phase READY: a change failed, what was there goes on


@dataclass(frozen=True, kw_only=True)
class Move:
    """A READY session on its way from one host to another, its app being served all the while."""

    sandbox_id: SandboxId  # the other one: until the switch where it goes, afterwards where it was
    switched_at: datetime | None = None  # when the session's slug went over
    report: Report | None = None  # the last that was heard from where it goes


@dataclass(frozen=True, kw_only=True)
class Entered:
    """One line of a session's history."""

    state: SessionState
    at: datetime


@dataclass(frozen=True, kw_only=True)
class Session:
    """One row of the sessions table. `revision` grows with every write, whoever makes it."""

    id: SessionId
    user_id: UserId
    tier: Tier
    prompt: str  # at most 16 KiB of text; "" when only a template was asked for
    template: str | None  # catalog name, when the app is a template
    bundle: Sha256 | None  # what the agent should start; None: generate from the prompt
    state: SessionState
    wanted: Wanted
    slug: Slug | None  # set by the first claim; stays through recovery, so the URL does
    sandbox_id: SandboxId | None  # the sandbox of this attempt
    attempt: int  # 1..ATTEMPTS_MAX
    version: int  # 0 until an app was healthy once
    report: Report | None  # of this attempt
    failure: Failure | None  # a verdict: set before clean-up, shown after it
    ttl_s: int  # seconds from creation to expiry, as asked for
    due_at: datetime  # look again at this time; the reconcile loop nudges what is overdue
    deadline_at: datetime | None  # of the present state
    expires_at: datetime  # the reaper's column
    created_at: datetime
    updated_at: datetime
    history: tuple[Entered, ...]
    wish: Wish = field(default_factory=Wish)  # what it asks of its host
    refused_by: tuple[HostId, ...] = ()  # hosts whose Docker would not start this attempt
    move: Move | None = None
    turns: Turns = field(default_factory=Turns)
    reused: bool = False  # its first version was made by an earlier session, from an equal prompt
    revision: int = 0

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    @property
    def changing(self) -> bool:
        """Whether a change is under way: the version before goes on being served meanwhile."""
        return self.state in IN_PROGRESS and self.turns.under_way

    @property
    def served(self) -> bool:
        """Whether its URL leads to a running app."""
        return self.state is SessionState.READY or self.changing

    @property
    def state_since(self) -> datetime:
        return self.history[-1].at


def move(session: Session, to: SessionState, now: datetime) -> Session:
    """The session in its next state. Raises IllegalMove, with its story, for a move that isn't."""
    if to not in TRANSITIONS[session.state]:
        story = " -> ".join(entered.state for entered in session.history)
        raise errors.IllegalMove(
            f"session {session.id} can't go from {session.state} to {to}; it went {story}"
        )
    return replace(
        session, state=to, updated_at=now, history=(*session.history, Entered(state=to, at=now))
    )


_PROGRESS: Mapping[SessionState, int] = {
    SessionState.QUEUED: 10,
    SessionState.PROVISIONING: 30,
    SessionState.GENERATING: 31,
    SessionState.DEPLOYING: 90,
    SessionState.READY: 100,
    SessionState.DESTROYING: 100,
    SessionState.DESTROYED: 100,
    SessionState.FAILED: 100,
}
_GENERATING_MAX = 89

_MESSAGES: Mapping[SessionState, str] = {
    SessionState.QUEUED: "Waiting for a free sandbox",
    SessionState.PROVISIONING: "Preparing a sandbox",
    SessionState.GENERATING: "Claude is writing your app",
    SessionState.DEPLOYING: "Starting your app",
    SessionState.READY: "Your app is running",
    SessionState.DESTROYING: "Cleaning up",
    SessionState.DESTROYED: "This app is gone",
    SessionState.FAILED: "This didn't work",
}


def progress_of(session: Session) -> int:
    """What the bar shows, 10..100: by state, and within GENERATING by what the agent reported."""
    if session.state is SessionState.GENERATING and session.report is not None:
        return max(_PROGRESS[session.state], min(session.report.progress, _GENERATING_MAX))
    return _PROGRESS[session.state]


def message_of(session: Session) -> str:
    """One line for people."""
    if session.state is SessionState.FAILED and session.failure is not None:
        return session.failure.message.splitlines()[0] if session.failure.message else ""
    if session.state in IN_PROGRESS and session.report is not None and session.report.message:
        return session.report.message
    if session.state is SessionState.QUEUED and session.attempt > 1:
        return f"Trying again (attempt {session.attempt})"
    return _MESSAGES[session.state]


def phase_seconds(session: Session, now: datetime) -> dict[str, float]:
    """Seconds spent in each state so far, summed over attempts, in order of first entry."""
    spent: dict[str, float] = {}
    ends = [entered.at for entered in session.history[1:]]
    ends.append(session.history[-1].at if session.ended else now)
    for entered, end in zip(session.history, ends, strict=True):
        seconds = max(0.0, (end - entered.at).total_seconds())
        spent[entered.state] = round(spent.get(entered.state, 0.0) + seconds, 3)
    return spent


def accept_report(session: Session, report: Report, now: datetime) -> Session | None:
    """The session with a newer report in it, or None when the report is late, repeated or moot.

    Progress never goes backwards within an attempt: an agent that restarts its count is clamped.
    A report that changes what converge may do makes the session due at once.
    """
    known = session.report
    if session.ended or session.failure is not None or session.wanted is Wanted.GONE:
        return None
    if known is not None and (report.seq <= known.seq or known.phase is Phase.FAILED):
        return None
    # A second start of the app is DEPLOYING again only for the log; what was READY stays READY.
    phase = report.phase
    if known is not None and phase is not Phase.FAILED:
        phase = max(known.phase, phase, key=_PHASE_ORDER.index)
    progress = max(report.progress, known.progress if known is not None else 0)
    merged = replace(report, phase=phase, progress=progress)
    moved = known is None or known.phase is not phase
    return replace(session, report=merged, updated_at=now, due_at=now if moved else session.due_at)


def accept_successor_report(session: Session, report: Report, now: datetime) -> Session | None:
    """The session with what the agent of its next sandbox said; None when that is late or moot."""
    if session.ended or session.wanted is Wanted.GONE or session.move is None:
        return None
    known = session.move.report
    if known is not None and (report.seq <= known.seq or known.phase is Phase.FAILED):
        return None
    moved = known is None or known.phase is not report.phase
    return replace(
        session,
        move=replace(session.move, report=report),
        due_at=now if moved else session.due_at,
    )


_PHASE_ORDER = (Phase.GENERATING, Phase.DEPLOYING, Phase.READY, Phase.FAILED)
