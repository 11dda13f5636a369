"""The Session: what a user asked for, with its state machine. The centre of the domain."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from orchestrator.contract.wire import Phase as Phase
from orchestrator.domain import errors
from orchestrator.domain.ids import HostId, SandboxId, SessionId, Sha256, Slug, UserId
from orchestrator.domain.pool.host import Wish
from orchestrator.domain.sessions.change_turns import Turns
from orchestrator.domain.sessions.walks import Walked


class SessionState(enum.StrEnum):
    """How far a session has come. Only converge changes it."""

    QUEUED = "queued"  # waits for a sandbox, or for its next attempt
    PROVISIONING = "provisioning"  # a sandbox is claimed; its agent has not reported yet
    GENERATING = "generating"  # the agent lets the model write the app
    DEPLOYING = "deploying"  # the agent starts the app
    READY = "ready"  # the public URL answered
    DESTROYING = "destroying"  # wanted is GONE; its sandboxes are being removed
    DESTROYED = "destroyed"  # only its record and its archived bundles are left
    FAILED = "failed"  # given up; `failure` says why, its sandbox is left to the pool


class Wanted(enum.StrEnum):
    """What should become of a session. The API, the reaper and operators set this and no state."""

    RUNNING = "running"  # keep it until it expires
    GONE = "gone"  # destroy it now; this can't be undone


class Tier(enum.StrEnum):
    """The plan of a user. It decides their limits and their place in the queue."""

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
    # READY -> QUEUED: recovery. The sandbox was lost; the bundle starts in another one, at the
    # same URL. READY -> GENERATING or DEPLOYING: a change. The version before it stays served.
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
AT_REST = ENDED | {SessionState.READY}  # it may stay as it is for as long as it lives
HISTORY_MAX = 50  # states in a session's row, which each look reads and each step writes
IN_PROGRESS = frozenset(
    {SessionState.PROVISIONING, SessionState.GENERATING, SessionState.DEPLOYING}
)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why an attempt, a change or a whole session failed."""

    code: str  # for programs; never renamed
    message: str  # for people; if the app failed, it ends with the last log lines
    permanent: bool = True  # False: the next attempt may work
    counts_as_attempt: bool = True  # False: it was the host's fault, another host may try at once


@dataclass(frozen=True, kw_only=True)
class Report:
    """The latest report of the agent of this attempt. A fact, not a state."""

    seq: int  # grows with every report of one attempt; a report with a smaller one is dropped
    phase: Phase
    progress: int  # 0..100, estimated by the agent
    message: str = ""  # for people
    failure: Failure | None = None  # only with phase FAILED
    summary: str = ""  # with phase READY: the model's own words about what it did
    setback: Failure | None = None  # with phase READY: a change failed, the old version runs on


@dataclass(frozen=True, kw_only=True)
class Move:
    """A READY session is moving from one host to another, while its app stays up.

    `Session.sandbox_id` names the sandbox that serves the app. The move names the other one:
    until the switch that is the new sandbox, afterwards the old one.
    """

    sandbox_id: SandboxId
    switched_at: datetime | None = None  # when the session's slug passed to the new sandbox
    report: Report | None = None  # the latest report of the new sandbox's agent


@dataclass(frozen=True, kw_only=True)
class HistoryEntry:
    """One entry of a session's history: a state and when it was entered."""

    state: SessionState
    at: datetime


@dataclass(frozen=True, kw_only=True)
class Session:
    """One row of the sessions table."""

    id: SessionId
    user_id: UserId
    tier: Tier
    prompt: str  # at most 16 KiB of UTF-8; "" if the user only chose a template
    template: str | None  # its name in the catalog, if the app is a template
    bundle: Sha256 | None  # what the agent should start; None: generate it from the prompt
    state: SessionState
    wanted: Wanted
    slug: Slug | None  # set by the first claim; recovery keeps it, and with it the URL
    sandbox_id: SandboxId | None  # the sandbox of this attempt
    attempt: int  # 1..ATTEMPTS_MAX
    version: int  # the version that runs; 0 until one was healthy
    report: Report | None  # of this attempt
    failure: Failure | None  # set before clean-up begins, shown once it is over
    ttl_s: int  # requested seconds from creation to expiry
    due_at: datetime  # when the nudge loop nudges it, if nobody did before
    deadline_at: datetime | None  # of the present state; None: it may last
    expires_at: datetime  # then the reaper sets wanted = GONE
    created_at: datetime
    updated_at: datetime
    history: tuple[HistoryEntry, ...]  # the last HISTORY_MAX entries
    wish: Wish = field(default_factory=Wish)  # what its host must offer
    refused_by: tuple[HostId, ...] = ()  # hosts whose Docker refused to start this attempt
    move: Move | None = None
    turns: Turns = field(default_factory=Turns)
    reused: bool = False  # an earlier session made its first version, from an equal prompt
    # Hosts where it lost a sandbox or got one that never answered, with when: others come first.
    lost_on: Mapping[HostId, datetime] = field(default_factory=dict)
    crashes: tuple[datetime, ...] = ()  # when its app took a sandbox down, within an hour
    walked: Walked | None = None  # what its public address has shown of this assignment
    history_dropped: int = 0  # entries that `history` no longer has; the events have more of them
    revision: int = 0  # grows with every write; a write of an older one is refused

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    @property
    def is_changing(self) -> bool:
        """Whether a change is under way, while the version before it stays served."""
        return self.state in IN_PROGRESS and self.turns.has_running_change

    @property
    def is_served(self) -> bool:
        """Whether the URL leads to a running app."""
        return self.state is SessionState.READY or self.is_changing

    @property
    def state_since(self) -> datetime:
        return self.history[-1].at

    def transition(self, to: SessionState, now: datetime) -> Session:
        """The session in state `to`.

        Raises errors.IllegalTransition, with the history, if TRANSITIONS doesn't allow it.
        """
        if to not in TRANSITIONS[self.state]:
            states = " -> ".join(entry.state for entry in self.history)
            raise errors.IllegalTransition(
                f"session {self.id} can't go from {self.state} to {to}; its history: {states}"
            )
        history = (*self.history, HistoryEntry(state=to, at=now))
        kept = history[-HISTORY_MAX:]
        return replace(
            self,
            state=to,
            updated_at=now,
            history=kept,
            history_dropped=self.history_dropped + len(history) - len(kept),
        )
