"""What agents ask and tell: inbox, reports, bundles. Called by the agent app.

Agents state facts; none of this moves a session. A fact that changes what converge may do is
followed by a nudge.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from orchestrator import ports
from orchestrator.domain import errors, host, session
from orchestrator.domain.bundle import PACKED_MAX_BYTES, BundleRecord
from orchestrator.domain.ids import SandboxId, SessionId, Sha256
from orchestrator.domain.sandbox import Sandbox, SandboxState
from orchestrator.domain.session import (
    IN_PROGRESS,
    Phase,
    Report,
    Session,
    SessionState,
    Wanted,
)
from orchestrator.services import assignments, versions
from orchestrator.services.deps import Deps
from orchestrator.services.nudges import nudge
from orchestrator.services.tokens import SessionGrant

# No longer than the store leaves visits unwritten: a second one can't be taken for the first then.
_FIRST_VISIT_WITHIN = timedelta(seconds=10)


@dataclass(frozen=True, kw_only=True)
class Inbox:
    """Answer to one look into the inbox."""

    assignment: dict[str, Any] | None  # JSON for the agent; None: nothing new


def visit(deps: Deps, sandbox_id: SandboxId, have: str) -> Inbox:
    """One look into the inbox: records the visit, and tells what the sandbox should run.

    Raises errors.Forbidden (sandbox_retired) when the sandbox is to end: its agent then exits.
    """
    now = deps.clock.now()
    try:
        box = deps.store.sandboxes.agent_seen(sandbox_id, now)
    except errors.NotFound as missing:
        raise _retired(sandbox_id) from missing
    if box.agent_seen_at == now and _has_just_started(box, now):
        _learn_start(deps, box)
    if box.state is SandboxState.WARM and box.state_since == now:
        deps.events.pool_changed()  # this visit made it so: who waits may claim it
    return peek(deps, box, have)


def _has_just_started(box: Sandbox, now: datetime) -> bool:
    """Whether this visit is the first. One that still waits for its route comes again, but its next
    visit isn't written within the first seconds."""
    waits = box.state is SandboxState.CREATING and now - box.created_at < _FIRST_VISIT_WITHIN
    return waits or (box.state is not SandboxState.CREATING and box.state_since == now)


def _learn_start(deps: Deps, box: Sandbox) -> None:
    """What its host's start curve learns from a sandbox that has just dialled home."""
    took_s = (deps.clock.now() - box.created_at).total_seconds()
    deps.store.hosts.change(
        box.host_id,
        lambda found: replace(found, starts=host.measured(found.starts, box.started_with, took_s)),
    )


def peek(deps: Deps, box: Sandbox, have: str) -> Inbox:
    """What a sandbox should run that it doesn't run yet."""
    if box.state in {SandboxState.STOPPING, SandboxState.BROKEN, SandboxState.GONE}:
        raise _retired(box.id)
    if box.state is not SandboxState.CLAIMED or box.session_id is None:
        return Inbox(assignment=None)
    found = deps.store.sessions.get(box.session_id)
    grant = SessionGrant(
        session_id=found.id,
        attempt=found.attempt,
        sandbox_id=box.id,
        change=_change_of(found, box.id),
    )
    if not _is_current(found, grant) or have == assignments.id_of(grant):
        return Inbox(assignment=None)
    if grant.change and not found.changing:
        return Inbox(assignment=None)  # it is over before the sandbox heard of it
    return Inbox(assignment=assignments.of(deps, found, grant))


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
    if not _is_current(found, grant):
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


def report(deps: Deps, found: Session, sender: SandboxId, said: Report, lines: list[str]) -> bool:
    """Take what the agent in sandbox `sender` reports as a fact. False when it is late, repeated
    or moot."""
    now = deps.clock.now()
    if lines:
        deps.store.logs.append(found.id, lines, now)
    attempt, change = found.attempt, _change_of(found, sender)
    while True:
        # What was true of one attempt, place or change must not be taken for another's.
        if found.attempt != attempt or not _runs_in(found, sender):
            return False
        if _change_of(found, sender) != change:
            return False
        accept = session.accept_report
        if sender != found.sandbox_id:
            accept = session.accept_successor_report
        before = _phase_heard(found, sender)
        changed = accept(found, said, now)
        if changed is None:
            return False
        try:
            saved = deps.store.sessions.save(changed)
        except errors.StaleWrite:
            found = deps.store.sessions.get(found.id)
            continue
        break
    deps.events.session_changed(saved.id)
    if before is not said.phase:
        nudge(deps, saved)
    return True


def bundle_for(deps: Deps, found: Session, sender: SandboxId) -> tuple[Sha256, bytes]:
    """The bytes of what the assignment of a sandbox names. Raises errors.NotFound when it names
    none."""
    digest = assignments.bundle_of(deps, found, _change_of(found, sender))
    if digest is None:
        raise errors.NotFound("this session has no bundle: its app is to be generated")
    return digest, assignments.load_bundle(deps.catalog, deps.bundles, digest)


def keep_bundle(
    deps: Deps, found: Session, data: bytes, claimed: str, *, healthy: bool = True
) -> BundleRecord:
    """Keep what a sandbox runs as the session's next version. What never was `healthy` is kept
    for its owner alone: no attempt and no recovery starts it.

    Raises errors.TooLarge, errors.InvalidInput (bundle_refused), errors.Conflict when the bytes
    aren't those that the agent meant to send, errors.Forbidden (not_generating) when nothing is
    being made.
    """
    if len(data) > PACKED_MAX_BYTES:
        raise errors.TooLarge(
            f"a bundle has at most {PACKED_MAX_BYTES} bytes", limit_bytes=PACKED_MAX_BYTES
        )
    if hashlib.sha256(data).hexdigest() != claimed:
        raise errors.Conflict("the bundle arrived damaged: its SHA-256 differs")
    manifest = deps.bundles.inspect(data)
    if found.state not in IN_PROGRESS:
        raise errors.Forbidden("nothing is being made in this session", code="not_generating")
    digest = deps.bundles.put(data)
    known = versions.of_session(deps, found)
    change = found.turns.given if found.changing else 0
    record = BundleRecord(
        session_id=found.id,
        version=versions.next_number(found, known),
        sha256=digest,
        size_bytes=len(data),
        kind=manifest.kind,
        title=manifest.title,
        created_at=deps.clock.now(),
        delete_after=None,
        healthy=healthy,
        change=change,
        provider=", ".join(deps.store.usage.providers(found.id, change)),
    )
    repeated = next((one for one in known if one.sha256 == digest), None)
    if repeated is None:
        deps.store.bundles.add(record)
    elif healthy and not repeated.healthy:
        deps.store.bundles.update(replace(repeated, healthy=True))
    if healthy:
        _point_at(deps, found, digest)  # also if the first time ended before this
    return repeated or record


def _point_at(deps: Deps, found: Session, digest: Sha256) -> None:
    """From now on another attempt, or recovery, starts this bundle and calls nobody."""
    while True:
        try:
            deps.store.sessions.save(replace(found, bundle=digest, updated_at=deps.clock.now()))
        except errors.StaleWrite:
            found = deps.store.sessions.get(found.id)
            continue
        return


def _is_current(found: Session, grant: SessionGrant) -> bool:
    """Whether this attempt is still the one that counts: what makes a token valid."""
    return (
        not found.ended
        and found.wanted is Wanted.RUNNING
        and found.failure is None
        and found.attempt == grant.attempt
        and _runs_in(found, grant.sandbox_id)
        and _change_of(found, grant.sandbox_id) == grant.change
    )


def _change_of(found: Session, sandbox_id: SandboxId) -> int:
    """The change that a sandbox was given last; 0 while it has what it began with."""
    return found.turns.given if sandbox_id == found.sandbox_id else 0


def _is_of_an_earlier_assignment(found: Session, grant: SessionGrant) -> bool:
    """A last word that crosses the next assignment: no reason for suspicion."""
    return (
        found.attempt == grant.attempt
        and found.sandbox_id == grant.sandbox_id
        and grant.change < found.turns.given
    )


def _runs_in(found: Session, sandbox_id: SandboxId) -> bool:
    """Whether that is the session's sandbox, or the one that it is moving to."""
    if found.sandbox_id == sandbox_id:
        return True
    move = found.move
    return move is not None and move.switched_at is None and move.sandbox_id == sandbox_id


def _phase_heard(found: Session, sender: SandboxId) -> Phase | None:
    last = found.report
    if sender != found.sandbox_id:
        last = found.move.report if found.move is not None else None
    return last.phase if last is not None else None


def _retired(sandbox_id: SandboxId) -> errors.Forbidden:
    return errors.Forbidden(f"{sandbox_id} is no longer wanted", code="sandbox_retired")


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
