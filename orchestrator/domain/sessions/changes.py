"""Changes: what users ask for once their app runs, and how each ended. change_turns.py says whose
turn it is.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime

from orchestrator.domain.ids import SessionId
from orchestrator.domain.sessions.change_turns import Turns
from orchestrator.domain.sessions.session import Failure

WAITING_MAX = 5
KEPT_MAX = 500  # the last ones of a session; also those whose version is kept


class ChangeKind(enum.StrEnum):
    """What the user asks for."""

    MESSAGE = "message"  # the model makes the next version, following the user's words
    RESTORE = "restore"  # an earlier version runs again


class ChangeState(enum.StrEnum):
    """How far a change has come. For people; not stored, see `state_of`."""

    QUEUED = "queued"  # it waits for its turn
    RUNNING = "running"  # it is being carried out; the version before it stays served
    DONE = "done"  # it succeeded: its version runs, or ran until the next change
    FAILED = "failed"  # it failed, or its session ended first


@dataclass(frozen=True, kw_only=True)
class Change:
    """One row of the changes table."""

    session_id: SessionId
    number: int  # 1, 2, ... within the session
    text: str  # the user's words; "" for a restore
    restores: int | None  # the version to run again; None for a message
    created_at: datetime
    ended_at: datetime | None = None
    version: int | None = None  # the version that runs because of it
    summary: str = ""  # the model's own words about what it did
    failure: Failure | None = None

    @property
    def kind(self) -> ChangeKind:
        return ChangeKind.MESSAGE if self.restores is None else ChangeKind.RESTORE


def state_of(change: Change, turns: Turns, *, session_ended: bool) -> ChangeState:
    """The state of a change. If its session ended while it waited or ran, it has failed."""
    if change.ended_at is not None:
        return ChangeState.FAILED if change.failure is not None else ChangeState.DONE
    if session_ended:
        return ChangeState.FAILED
    is_running = turns.has_running_change and change.number == turns.started
    return ChangeState.RUNNING if is_running else ChangeState.QUEUED
