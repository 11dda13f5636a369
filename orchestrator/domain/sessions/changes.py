"""Changes: what users ask of apps that are there, and how that ended. See turns.py for when."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime

from orchestrator.domain.ids import SessionId
from orchestrator.domain.sessions.session import Failure
from orchestrator.domain.sessions.turns import Turns

WAITING_MAX = 5


class ChangeKind(enum.StrEnum):
    """What is to be done."""

    MESSAGE = "message"  # Claude makes the next version, by what the user says
    RESTORE = "restore"  # an earlier version is to run again


class ChangeState(enum.StrEnum):
    """How a change is: for people, worked out of turns and outcome."""

    QUEUED = "queued"  # waits for its turn
    RUNNING = "running"  # is being carried out; the version before goes on being served
    DONE = "done"  # its version runs, or ran
    FAILED = "failed"  # came to nothing


@dataclass(frozen=True, kw_only=True)
class Change:
    """One row of the changes table."""

    session_id: SessionId
    number: int  # 1.. within the session
    text: str  # what the user says; "" for a restore
    restores: int | None  # the version to go back to; None for a message
    created_at: datetime
    ended_at: datetime | None = None
    version: int | None = None  # that it came to
    summary: str = ""  # what the model says that it did
    failure: Failure | None = None  # why it came to nothing

    @property
    def kind(self) -> ChangeKind:
        return ChangeKind.MESSAGE if self.restores is None else ChangeKind.RESTORE


def state_of(change: Change, turns: Turns, *, session_ended: bool) -> ChangeState:
    """How it is. What was still waiting when its session ended has come to nothing."""
    if change.ended_at is not None:
        return ChangeState.FAILED if change.failure is not None else ChangeState.DONE
    if session_ended:
        return ChangeState.FAILED
    under_way = turns.under_way and change.number == turns.given
    return ChangeState.RUNNING if under_way else ChangeState.QUEUED
