"""The Session: what a user asked for, its state machine, and what a person sees of it."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from orchestrator.domain import errors
from orchestrator.domain.ids import HostId, SandboxId, SessionId, Sha256, Slug, UserId
from orchestrator.domain.pool.host import Wish
from orchestrator.domain.sessions.turns import Turns


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

    def transition(self, to: SessionState, now: datetime) -> Session:
        """The session in its next state. Raises IllegalMove, with the history, when the table has
        no such transition."""
        if to not in TRANSITIONS[self.state]:
            states = " -> ".join(entered.state for entered in self.history)
            raise errors.IllegalMove(
                f"session {self.id} can't go from {self.state} to {to}; it went {states}"
            )
        return replace(
            self, state=to, updated_at=now, history=(*self.history, Entered(state=to, at=now))
        )
