"""Begins and ends the changes of a running app, one after the other. Called by converge alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from orchestrator.domain import errors
from orchestrator.domain.sessions import planner
from orchestrator.domain.sessions.bundles import BundleRecord
from orchestrator.domain.sessions.changes import Change
from orchestrator.domain.sessions.session import Failure, Session, SessionState
from orchestrator.services.deps import Deps
from orchestrator.services.sessions import versions


def begin(deps: Deps, found: Session, now: datetime) -> None:
    """Give the next change to the session's sandbox, or end it at once if there is nothing to do.
    Raises StaleWrite."""
    change = _next(deps, found)
    if change.restores is not None:
        try:
            wanted = versions.numbered(deps, found, change.restores)
        except errors.NotFound as missing:
            return end(deps, found, Failure(code=missing.code, message=str(missing)), now)
        if wanted.sha256 == found.bundle:
            return end(deps, found, None, now)
    message = change.restores is None
    state = SessionState.GENERATING if message else SessionState.DEPLOYING
    begun = replace(
        found.transition(state, now),
        report=None,
        turns=found.turns.begun(),
        deadline_at=planner.deadline_for(state, now, deps.policy.deadlines),
        due_at=planner.look_again_at(now),
    )
    deps.store.sessions.save(begun)
    if found.sandbox_id is not None:
        deps.events.inbox_changed(found.sandbox_id)
    deps.events.session_changed(found.id)
    return None


def end(deps: Deps, found: Session, failure: Failure | None, now: datetime) -> None:
    """The change whose turn it was is over, and the session READY: with its version, or with what
    was there before. Raises StaleWrite."""
    over = outcome(deps, found, failure, now)
    ready = over.session
    if ready.state is not SessionState.READY:
        ready = ready.transition(SessionState.READY, now)
    due_at = found.expires_at if ready.turns.next is None else now
    deps.store.changes.conclude(over.change, replace(ready, due_at=due_at, deadline_at=None))
    deps.events.session_changed(found.id)


@dataclass(frozen=True, kw_only=True)
class Over:
    """A change that is over, and its session without it."""

    change: Change
    session: Session


def outcome(deps: Deps, found: Session, failure: Failure | None, now: datetime) -> Over:
    """What the change whose turn it is came to. One whose version is there by now has been done,
    whatever was heard of it since."""
    change = _next(deps, found)
    if change.restores is not None and failure is None:
        version = versions.numbered(deps, found, change.restores)
        found = replace(found, bundle=version.sha256)
    running = versions.running(deps, found)
    if made_by(running, change):
        failure = None
    said = found.report.summary if found.report is not None and failure is None else ""
    if said and running is not None and made_by(running, change):
        deps.store.bundles.update(replace(running, summary=said))
    number = running.version if running is not None else found.version
    ended = replace(
        change,
        ended_at=now,
        version=number if failure is None else None,
        summary=said,
        failure=failure,
    )
    return Over(
        change=ended,
        session=replace(found, turns=found.turns.ended(), version=number, updated_at=now),
    )


def made_by(version: BundleRecord | None, change: Change) -> bool:
    """Whether that version is what this change came to."""
    return version is not None and version.change == change.number


def was_done(deps: Deps, found: Session) -> bool:
    """Whether the version of the change under way was kept, so that it need not be made again."""
    return found.changing and made_by(versions.running(deps, found), _next(deps, found))


def _next(deps: Deps, found: Session) -> Change:
    return deps.store.changes.get(found.id, found.turns.over + 1)
