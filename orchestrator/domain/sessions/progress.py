"""What people see of a session: a progress bar, one line of text, and the time in each state.

The API's views call it, and the store, which tells since when a sandbox works.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from orchestrator.domain.sessions.session import (
    IN_PROGRESS,
    HistoryEntry,
    Session,
    SessionState,
)

REST = timedelta(seconds=20)  # READY for less is no rest between two pieces of work

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
    """The progress bar, 10..100: by state, and within GENERATING by the agent's reports."""
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


def phase_seconds(session: Session, now: datetime) -> dict[SessionState, float]:
    """Seconds spent in each state until now, summed over attempts, in order of first entry."""
    totals: dict[SessionState, float] = {}
    ends = [entry.at for entry in session.history[1:]]
    ends.append(session.history[-1].at if session.ended else now)
    for entry, end in zip(session.history, ends, strict=True):
        seconds = max(0.0, (end - entry.at).total_seconds())
        totals[entry.state] = round(totals.get(entry.state, 0.0) + seconds, 3)
    return totals


def work_began_at(history: Sequence[HistoryEntry]) -> datetime:
    """Since when a session in progress works, which is the last state of its history.

    A start works since its present step began; it has few of them. An app that is changed works
    since its last rest: whoever asks for change after change is not always the latest.
    """
    began_at = history[-1].at
    if all(entry.state is not SessionState.READY for entry in history):
        return began_at
    for entry in reversed(history[:-1]):
        if entry.state not in IN_PROGRESS and began_at - entry.at >= REST:
            break
        began_at = entry.at
    return began_at
