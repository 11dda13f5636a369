"""Checks session tokens: which assignment a token is for, and whether it is still the current one.

Called by the agent app, the gateway, and the other modules of this package.
"""

from __future__ import annotations

from orchestrator import ports
from orchestrator.domain import errors
from orchestrator.domain.ids import SandboxId, SessionId
from orchestrator.domain.people.tokens import SessionGrant
from orchestrator.domain.sessions.session import IN_PROGRESS, Session, SessionState, Wanted
from orchestrator.services.deps import Deps


def authorize(deps: Deps, token: str, session_id: SessionId | None = None) -> Session:
    """The session that this token is for. With `session_id` it must be that session.

    Raises errors.Unauthorized if the token is not valid, and errors.Forbidden (token_refused) if
    it is for another session, an ended session, an earlier attempt or an earlier assignment. Every
    refusal but that of an earlier assignment is audited, once a minute for each sandbox.
    """
    grant = deps.tokens.read_session(token)
    if session_id is not None and grant.session_id != session_id:
        raise _audit_refusal(deps, grant, session_id, "another session")
    try:
        session = deps.store.sessions.get(grant.session_id)
    except errors.NotFound as error:
        raise _audit_refusal(deps, grant, grant.session_id, "a session that is gone") from error
    if _is_of_earlier_assignment(session, grant):
        raise errors.Forbidden("that token's assignment is over", code="token_refused")
    if not is_current(session, grant):
        raise _audit_refusal(deps, grant, session.id, "an attempt that is over")
    return session


def authorize_generation(deps: Deps, token: str) -> Session:
    """The session that may call the gateway with this token: its app is being written right now.

    Otherwise the token might come from an app that stole it from its agent. Raises the errors of
    `authorize`, and errors.Forbidden (not_generating).
    """
    session = authorize(deps, token)
    if not _is_generating(session):
        raise errors.Forbidden("this session is not generating", code="not_generating")
    return session


def _is_generating(session: Session) -> bool:
    """A first version counts before its agent has reported GENERATING: the two calls may cross."""
    if session.is_changing:
        return session.state is SessionState.GENERATING
    return session.bundle is None and session.state in IN_PROGRESS


def is_current(session: Session, grant: SessionGrant) -> bool:
    """Whether a grant is for the session's current attempt, sandbox and change."""
    return (
        not session.ended
        and session.wanted is Wanted.RUNNING
        and session.failure is None
        and session.attempt == grant.attempt
        and has_sandbox(session, grant.sandbox_id)
        and change_of(session, grant.sandbox_id) == grant.change
    )


def change_of(session: Session, sandbox_id: SandboxId) -> int:
    """The number of the change that a sandbox was given last; 0 if it was given none."""
    return session.turns.started if sandbox_id == session.sandbox_id else 0


def _is_of_earlier_assignment(session: Session, grant: SessionGrant) -> bool:
    """An agent's last call may cross the next assignment. That is not suspicious."""
    return (
        session.attempt == grant.attempt
        and session.sandbox_id == grant.sandbox_id
        and grant.change < session.turns.started
    )


def is_same_assignment(session: Session, authorized: Session) -> bool:
    """Whether a session still wants what it wanted when it was authorized: its agent's work."""
    return (
        not session.ended
        and session.wanted is Wanted.RUNNING
        and session.failure is None
        and session.attempt == authorized.attempt
        and session.sandbox_id == authorized.sandbox_id
        and session.turns.started == authorized.turns.started
    )


def has_sandbox(session: Session, sandbox_id: SandboxId) -> bool:
    """Whether this is the session's sandbox, or the successor that it moves to."""
    if session.sandbox_id == sandbox_id:
        return True
    move = session.move
    return move is not None and move.switched_at is None and move.sandbox_id == sandbox_id


def audit_foreign(deps: Deps, sender: SandboxId, owner: SandboxId) -> errors.Forbidden:
    """The error for a sandbox that sends a token of another sandbox. Writes it down."""
    return _audit(deps, sender, owner, "another sandbox")


def _audit_refusal(
    deps: Deps, grant: SessionGrant, subject: SessionId, origin: str
) -> errors.Forbidden:
    """The error for a refusal. Writes it down."""
    whose = f" ({grant.session_id}, attempt {grant.attempt})"
    return _audit(deps, grant.sandbox_id, subject, origin, whose)


def _audit(
    deps: Deps, actor: SandboxId, subject: str, origin: str, whose: str = ""
) -> errors.Forbidden:
    """The error for a token of this `origin`. Writes it down, but not every time: a sandbox repeats
    at will."""
    deps.store.may_block()  # before it is counted: a look-up starts again in a thread
    now = deps.clock.now()
    skipped = deps.refusals.take(f"{actor} {origin}", now.timestamp())
    if skipped is not None:
        detail = f"a token of {origin}{whose}"
        deps.store.audit.add(
            ports.AuditEntry(
                at=now,
                actor=actor,
                action="agent_refused",
                subject=subject,
                detail=f"{detail}, and {skipped} more since the last entry" if skipped else detail,
            )
        )
    return errors.Forbidden(f"that token is of {origin}", code="token_refused")
