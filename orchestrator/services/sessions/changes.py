"""Requests changes of a running app: a message to Claude, or an earlier version. Called by the API.

These functions only record the request. services/sessions/change_steps.py carries it out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from orchestrator.domain import errors
from orchestrator.domain.people.access import LIMITS, Principal
from orchestrator.domain.sessions.changes import WAITING_MAX, Change
from orchestrator.domain.sessions.session import Session, SessionState, Wanted
from orchestrator.services import storage
from orchestrator.services.deps import Deps
from orchestrator.services.nudges import nudge
from orchestrator.services.sessions import prompts, quotas, requests, versions

_FULL_RETRY_S = 30.0  # a change takes about as long


@dataclass(frozen=True, kw_only=True)
class AddedChange:
    """A change that was recorded, and its session right after that."""

    change: Change
    session: Session


def send_message(
    deps: Deps, principal: Principal, session_id: str, text: str, key: str | None = None
) -> AddedChange:
    """Ask Claude for a change of the app. `key` is the client's Idempotency-Key.

    Raises errors.InvalidInput (message_empty, message_too_large, message_not_text),
    errors.NotFound (session_unknown), errors.Conflict (generation_unavailable, session_ending,
    idempotency_conflict), errors.LimitReached (messages_full, storage_quota, too_many_changes).
    """
    text = prompts.check_text(text, kind="message", field="text", if_empty="say what should change")
    prompts.check_can_generate(deps, field="text")
    return _request_change(deps, principal, session_id, _WantedChange(text=text), key)


def restore(
    deps: Deps, principal: Principal, session_id: str, version: int, key: str | None = None
) -> AddedChange:
    """Ask for an earlier version to run again. `key` is the client's Idempotency-Key.

    Raises errors.NotFound (session_unknown, version_unknown), errors.Conflict
    (version_not_healthy, version_running, session_ending, idempotency_conflict),
    errors.LimitReached (messages_full, too_many_changes).
    """
    return _request_change(deps, principal, session_id, _WantedChange(restores=version), key)


@dataclass(frozen=True, kw_only=True)
class _WantedChange:
    """What a client asks for: one of the two is set."""

    text: str = ""
    restores: int | None = None


def _request_change(
    deps: Deps, principal: Principal, session_id: str, wanted: _WantedChange, key: str | None
) -> AddedChange:
    while True:
        session = requests.get(deps, principal, session_id)
        earlier = None if key is None else deps.store.changes.find(session.id, key)
        if earlier is not None:
            # A repeated request gets its first answer, even if the session has ended since.
            _check_same(earlier, wanted)
            return AddedChange(change=earlier, session=session)
        _check_accepts_changes(session)
        storage.check_room(deps)
        if wanted.restores is None:
            quotas.check_can_store(deps, session.id, session.user_id)
        else:
            _check_restorable(deps, session, wanted.restores)
        try:
            max_per_minute = LIMITS[principal.tier].changes_per_minute
            added = _add(deps, session, wanted, key, max_per_minute)
        except errors.StaleWrite:
            continue
        deps.events.session_changed(session.id)
        nudge(deps, added.session)
        return added


def _add(
    deps: Deps, session: Session, wanted: _WantedChange, key: str | None, max_per_minute: int
) -> AddedChange:
    now = deps.clock.now()
    turns = replace(session.turns, requested=session.turns.requested + 1)
    change = Change(
        session_id=session.id,
        number=turns.requested,
        text=wanted.text,
        restores=wanted.restores,
        created_at=now,
    )
    due_at = now if session.state is SessionState.READY else session.due_at
    counted = replace(session, turns=turns, due_at=due_at, updated_at=now)
    saved = deps.store.changes.add(change, counted, key, max_per_minute=max_per_minute)
    return AddedChange(change=change, session=saved)


def _check_same(earlier: Change, wanted: _WantedChange) -> None:
    if (earlier.text, earlier.restores) != (wanted.text, wanted.restores):
        raise errors.Conflict(
            "this Idempotency-Key was used for another request: use a new one",
            code="idempotency_conflict",
        )


def _check_restorable(deps: Deps, session: Session, number: int) -> None:
    version = versions.get_version(deps, session, number)
    if not version.healthy:
        raise errors.Conflict(
            f"version {number} never ran well: it can be downloaded, not restored",
            code="version_not_healthy",
        )
    if version.sha256 == session.bundle and session.turns.next_number is None:
        raise errors.Conflict(f"version {number} runs already", code="version_running")


def _check_accepts_changes(session: Session) -> None:
    if session.ended or session.wanted is Wanted.GONE or session.failure is not None:
        raise errors.Conflict(
            "this session has ended or is ending; start a new one", code="session_ending"
        )
    if session.turns.waiting >= WAITING_MAX:
        raise errors.LimitReached(
            f"{WAITING_MAX} changes of this app wait already; wait until one of them is done",
            code="messages_full",
            retry_after_s=_FULL_RETRY_S,
            limit=WAITING_MAX,
        )
