"""Which sessions want a walk of their public address, and what becomes of its result.

The process `agents` walks: no worker waits for an app. It calls this; what is written down is a
fact, and converge decides on it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from orchestrator.contract.health import Condition, Finding
from orchestrator.domain import errors
from orchestrator.domain.ids import SandboxId, SessionId, Slug, UserId
from orchestrator.domain.sessions import walks
from orchestrator.domain.sessions.session import IN_PROGRESS, Phase, Session, SessionState, Wanted
from orchestrator.domain.sessions.walks import Walked
from orchestrator.services.deps import Deps
from orchestrator.services.nudges import nudge


@dataclass(frozen=True, kw_only=True)
class Errand:
    """A walk that a session wants now."""

    session_id: SessionId
    user_id: UserId
    attempt: int
    sandbox_id: SandboxId
    slug: Slug  # of the sandbox: during a move it isn't the session's


def find_errand(deps: Deps, session_id: SessionId) -> Errand | None:
    """The walk that this session wants. None: none, or the route to its sandbox isn't live."""
    try:
        session = deps.store.sessions.get(session_id)
        sandbox_id = sandbox_to_walk(session)
        if sandbox_id is None or _is_decided(session):
            return None
        sandbox = deps.store.sandboxes.get(sandbox_id)
    except errors.NotFound:
        return None
    if not sandbox.routed:
        return None  # the publisher nudges the session, which asks again
    return Errand(
        session_id=session.id,
        user_id=session.user_id,
        attempt=session.attempt,
        sandbox_id=sandbox_id,
        slug=sandbox.slug,
    )


def sandbox_to_walk(session: Session) -> SandboxId | None:
    """The sandbox whose agent says that the app runs, which nobody has seen yet."""
    if session.wanted is Wanted.GONE or session.failure is not None:
        return None
    move = session.move
    if session.state is SessionState.READY and move is not None and move.switched_at is None:
        is_ready = move.report is not None and move.report.phase is Phase.READY
        return move.sandbox_id if is_ready else None
    if session.state not in IN_PROGRESS or session.is_changing:
        return None
    is_ready = session.report is not None and session.report.phase is Phase.READY
    return session.sandbox_id if is_ready else None


def begin(deps: Deps, errand: Errand) -> None:
    """Note that a walk takes a while, so that no worker looks for its result in vain."""
    saved = _note(deps, errand, lambda walked: walks.begin(walked, deps.clock.now()))
    if saved is not None and saved.walked is not None and saved.walked.is_first:
        nudge(deps, saved)


def end(deps: Deps, errand: Errand, finding: Finding) -> float | None:
    """Note what a walk has shown, and nudge if converge has something to decide.

    Returns the pause before the next walk, in seconds; None: the session wants no other one.
    """
    saved = _note(deps, errand, lambda walked: walks.add(walked, finding, deps.clock.now()))
    if saved is None or saved.walked is None:
        return None
    if saved.walked.is_news:
        nudge(deps, saved)
    if _is_decided(saved):
        return None
    return walks.pause_after(saved.walked.failed).total_seconds()


def _is_decided(session: Session) -> bool:
    """Whether converge knows enough. While a session moves, its app is never given up."""
    walked = session.walked
    if walked is None or session.state is SessionState.READY:
        return walked is not None and walked.condition is Condition.WELL
    return walked.condition is Condition.WELL or walked.is_given_up


def _note(deps: Deps, errand: Errand, change: Callable[[Walked | None], Walked]) -> Session | None:
    """Write it. None: the session wants something else meanwhile."""
    while True:
        try:
            session = deps.store.sessions.get(errand.session_id)
        except errors.NotFound:
            return None
        if session.attempt != errand.attempt or sandbox_to_walk(session) != errand.sandbox_id:
            return None
        try:
            return deps.store.sessions.save(replace(session, walked=change(session.walked)))
        except errors.StaleWrite:
            continue
