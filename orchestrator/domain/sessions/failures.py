"""Why a session fails, in the words that people read. The planner decides with it."""

from __future__ import annotations

from orchestrator.domain.pool.host import Host, HostState
from orchestrator.domain.sessions.session import Failure, Report, Session, SessionState, Wanted


def reported(report: Report) -> Failure:
    """What the agent has said of it."""
    return report.failure or Failure(code="app_not_ready", message="The app did not start")


def timed_out(session: Session, host: Host | None) -> Failure:
    """The state of the session took too long.

    If the host is not UP, visitors can't reach its apps, say. That tells nothing of this app.
    """
    is_up = host is None or host.state is HostState.UP
    match session.state:
        case SessionState.PROVISIONING:
            code, problem, permanent = "sandbox_not_ready", "The sandbox did not answer", False
        case SessionState.GENERATING:
            code, problem, permanent = "generation_timeout", "The app was not written", True
        case _:
            code, problem, permanent = "app_not_ready", "The app did not answer at its URL", True
    last = session.report.message if session.report is not None else ""
    message = f"{problem} in time" + (f" (last heard: {last})" if last else "")
    permanent = permanent and is_up
    return Failure(code=code, message=message, permanent=permanent, counts_as_attempt=is_up)


def clean_up_reason(session: Session) -> str:
    """Why its sandboxes go: what operators read of them."""
    if session.wanted is Wanted.GONE:
        return "its session is to end"
    return f"its session failed: {session.failure.code}" if session.failure else "it was lost"
