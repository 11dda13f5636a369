"""Begins and ends the changes of a running app, one after the other. Called by converge alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from orchestrator.domain import errors
from orchestrator.domain.sessions import planner
from orchestrator.domain.sessions.bundles import BundleRecord
from orchestrator.domain.sessions.changes import Change
from orchestrator.domain.sessions.session import Failure, Phase, Session, SessionState
from orchestrator.services.deps import Deps
from orchestrator.services.sessions import versions


def begin_change(deps: Deps, session: Session, now: datetime) -> None:
    """Give the next change to the session's sandbox, or end it at once if there is nothing to do.

    Raises errors.StaleWrite.
    """
    change = _next_change(deps, session)
    if change.restores is not None:
        try:
            version = versions.get_version(deps, session, change.restores)
        except errors.NotFound as error:
            return end_change(deps, session, Failure(code=error.code, message=str(error)), now)
        if version.sha256 == session.bundle:
            return end_change(deps, session, None, now)
    state = SessionState.GENERATING if change.restores is None else SessionState.DEPLOYING
    begun = replace(
        session.transition(state, now),
        report=None,
        turns=session.turns.start_next(),
        deadline_at=planner.deadline_for(state, now, deps.policy.deadlines),
        due_at=planner.recheck_at(now),
    )
    deps.store.sessions.save(begun)
    if session.sandbox_id is not None:
        deps.events.inbox_changed(session.sandbox_id)
    deps.events.session_changed(session.id)
    return None


def end_change(deps: Deps, session: Session, failure: Failure | None, now: datetime) -> None:
    """End the change whose turn it is, and make the session READY.

    The session then runs the change's version, or after a failure what it ran before. Raises
    errors.StaleWrite.
    """
    ended = conclude_change(deps, session, failure, now)
    ready = ended.session
    if ready.state is not SessionState.READY:
        ready = ready.transition(SessionState.READY, now)
    due_at = session.expires_at if ready.turns.next_number is None else now
    ready = replace(ready, due_at=due_at, deadline_at=None)
    deps.store.changes.conclude(ended.change, ready, ended.version)
    deps.events.session_changed(session.id)


@dataclass(frozen=True, kw_only=True)
class EndedChange:
    """A change that has ended, and its session after it. None of it is saved yet."""

    change: Change
    session: Session
    version: BundleRecord | None  # the version that it made, with its summary


def conclude_change(
    deps: Deps, session: Session, failure: Failure | None, now: datetime
) -> EndedChange:
    """Work out how the change whose turn it is ended.

    A change whose version was kept has succeeded, whatever failed after that; unless the agent says
    that the version before serves on: then that is the one that a restart has to start.
    """
    change = _next_change(deps, session)
    if change.restores is not None and failure is None:
        restored = versions.get_version(deps, session, change.restores)
        session = replace(session, bundle=restored.sha256)
    running = versions.find_running(deps, session)
    before = _version_before(deps, session)
    if before is not None and _is_made_by(running, change):
        running, session = before, replace(session, bundle=before.sha256)
    made = running if _is_made_by(running, change) else None
    if made is not None:
        failure = None
    summary = session.report.summary if session.report is not None and failure is None else ""
    number = running.version if running is not None else session.version
    return EndedChange(
        change=replace(
            change,
            ended_at=now,
            version=number if failure is None else None,
            summary=summary,
            failure=failure,
        ),
        session=replace(session, turns=session.turns.finish_next(), version=number, updated_at=now),
        version=None if made is None else replace(made, summary=summary or made.summary),
    )


def _version_before(deps: Deps, session: Session) -> BundleRecord | None:
    """The version that serves on, if the agent says that the change came to nothing."""
    report = session.report
    if report is None or report.phase is not Phase.READY or report.setback is None:
        return None
    records = versions.list_versions(deps, session)
    return next((record for record in records if record.version == session.version), None)


def has_kept_version(deps: Deps, session: Session) -> bool:
    """Whether the version of the present change was kept, so that nobody has to make it again."""
    if not session.is_changing:
        return False
    return _is_made_by(versions.find_running(deps, session), _next_change(deps, session))


def _is_made_by(version: BundleRecord | None, change: Change) -> bool:
    return version is not None and version.change == change.number


def _next_change(deps: Deps, session: Session) -> Change:
    return deps.store.changes.get(session.id, session.turns.finished + 1)
