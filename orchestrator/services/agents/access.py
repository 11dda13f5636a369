"""Which assignment a token is for, and whether that one still counts. Called by the agent app, and
by the other modules of this package.
"""

from __future__ import annotations

from orchestrator import ports
from orchestrator.domain import errors
from orchestrator.domain.ids import SandboxId, SessionId
from orchestrator.domain.people.tokens import SessionGrant
from orchestrator.domain.sessions.session import IN_PROGRESS, Session, SessionState, Wanted
from orchestrator.services.deps import Deps


def authorize(deps: Deps, token: str, session_id: SessionId | None = None) -> Session:
    """The session whose present attempt this token belongs to.

    Raises errors.Unauthorized for what is no token, errors.Forbidden for one of another session,
    an earlier attempt or an ended session; the latter are audited.
    """
    grant = deps.tokens.read_session(token)
    if session_id is not None and grant.session_id != session_id:
        raise _refused(deps, grant, session_id, "a token of another session")
    try:
        found = deps.store.sessions.get(grant.session_id)
    except errors.NotFound as missing:
        raise _refused(deps, grant, grant.session_id, "its session is gone") from missing
    if _is_of_an_earlier_assignment(found, grant):
        raise errors.Forbidden("that token's assignment is over", code="token_refused")
    if not is_current(found, grant):
        raise _refused(deps, grant, found.id, "an attempt that is over")
    return found


def authorize_generation(deps: Deps, token: str) -> Session:
    """The session that may call the gateway with this token: one whose app is being written.

    A running app could have taken the token from its agent, and a template never needed the
    gateway. Raises as `authorize`, and errors.Forbidden (not_generating).
    """
    found = authorize(deps, token)
    if not _is_generating(found):
        raise errors.Forbidden("this session is not generating", code="not_generating")
    return found


def _is_generating(found: Session) -> bool:
    """For a first version also before converge has noticed that it is being written."""
    if found.changing:
        return found.state is SessionState.GENERATING
    return found.bundle is None and found.state in IN_PROGRESS


def is_current(found: Session, grant: SessionGrant) -> bool:
    """Whether this attempt is still the one that counts: what makes a token valid."""
    return (
        not found.ended
        and found.wanted is Wanted.RUNNING
        and found.failure is None
        and found.attempt == grant.attempt
        and runs_in(found, grant.sandbox_id)
        and change_of(found, grant.sandbox_id) == grant.change
    )


def change_of(found: Session, sandbox_id: SandboxId) -> int:
    """The change that a sandbox was given last; 0 while it has what it began with."""
    return found.turns.given if sandbox_id == found.sandbox_id else 0


def _is_of_an_earlier_assignment(found: Session, grant: SessionGrant) -> bool:
    """A last word that crosses the next assignment: no reason for suspicion."""
    return (
        found.attempt == grant.attempt
        and found.sandbox_id == grant.sandbox_id
        and grant.change < found.turns.given
    )


def runs_in(found: Session, sandbox_id: SandboxId) -> bool:
    """Whether that is the session's sandbox, or the one that it is moving to."""
    if found.sandbox_id == sandbox_id:
        return True
    move = found.move
    return move is not None and move.switched_at is None and move.sandbox_id == sandbox_id


def _refused(deps: Deps, grant: SessionGrant, subject: SessionId, why: str) -> errors.Forbidden:
    deps.store.audit.add(
        ports.AuditEntry(
            at=deps.clock.now(),
            actor=grant.sandbox_id,
            action="agent_refused",
            subject=subject,
            detail=f"{why} (token of {grant.session_id}, attempt {grant.attempt})",
        )
    )
    return errors.Forbidden(f"that token is of {why}", code="token_refused")
