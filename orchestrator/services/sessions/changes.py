"""What users ask of apps that are there: messages to Claude, and earlier versions back. Writes
intent alone; services/sessions/turns.py carries it out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from orchestrator.domain import errors
from orchestrator.domain.people.access import Principal
from orchestrator.domain.sessions.changes import WAITING_MAX, Change
from orchestrator.domain.sessions.session import Session, SessionState, Wanted
from orchestrator.services.deps import Deps
from orchestrator.services.nudges import nudge
from orchestrator.services.sessions import prompts, requests, versions

_FULL_RETRY_S = 30.0  # a change takes about as long


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A change that was asked for, and its session as it is then."""

    change: Change
    session: Session


def say(deps: Deps, who: Principal, session_id: str, text: str, key: str | None = None) -> Asked:
    """Ask Claude for a change of the app. `key`: the client's Idempotency-Key.

    Raises errors.InvalidInput (message_empty, message_too_large, message_not_text,
    generation_unavailable), errors.NotFound (session_unknown), errors.Conflict (session_ending,
    idempotency_conflict), errors.LimitReached (messages_full).
    """
    said = prompts.checked(text, what="message", field="text", needed="say what should change")
    prompts.check_generation(deps, field="text")
    return _ask(deps, who, session_id, _Wanted(text=said), key)


def restore(
    deps: Deps, who: Principal, session_id: str, version: int, key: str | None = None
) -> Asked:
    """Ask for an earlier version to run again.

    Raises errors.NotFound (session_unknown, version_unknown), errors.Conflict
    (version_not_healthy, version_running, session_ending, idempotency_conflict),
    errors.LimitReached (messages_full).
    """

    return _ask(deps, who, session_id, _Wanted(restores=version), key)


@dataclass(frozen=True, kw_only=True)
class _Wanted:
    """What a change is to be."""

    text: str = ""
    restores: int | None = None


def _ask(deps: Deps, who: Principal, session_id: str, wanted: _Wanted, key: str | None) -> Asked:
    while True:
        found = requests.get(deps, who, session_id)
        known = None if key is None else deps.store.changes.find(found.id, key)
        if known is not None:
            # Answered as it was asked then, whatever has become of it and the session since.
            _check_same(known, wanted)
            return Asked(change=known, session=found)
        _check_open(found)
        if wanted.restores is not None:
            _check_restorable(deps, found, wanted.restores)
        try:
            asked = _add(deps, found, wanted, key)
        except errors.StaleWrite:
            continue
        deps.events.session_changed(found.id)
        nudge(deps, asked.session)
        return asked


def _add(deps: Deps, found: Session, wanted: _Wanted, key: str | None) -> Asked:
    now = deps.clock.now()
    turns = replace(found.turns, asked=found.turns.asked + 1)
    change = Change(
        session_id=found.id,
        number=turns.asked,
        text=wanted.text,
        restores=wanted.restores,
        created_at=now,
    )
    due_at = now if found.state is SessionState.READY else found.due_at
    counted = replace(found, turns=turns, due_at=due_at, updated_at=now)
    return Asked(change=change, session=deps.store.changes.add(change, counted, key))


def _check_same(known: Change, wanted: _Wanted) -> None:
    if (known.text, known.restores) != (wanted.text, wanted.restores):
        raise errors.Conflict(
            "this Idempotency-Key was used for another request: use a new one",
            code="idempotency_conflict",
        )


def _check_restorable(deps: Deps, found: Session, version: int) -> None:
    record = versions.numbered(deps, found, version)
    if not record.healthy:
        raise errors.Conflict(
            f"version {version} never ran well: it can be downloaded, not restored",
            code="version_not_healthy",
        )
    if record.sha256 == found.bundle and found.turns.next is None:
        raise errors.Conflict(f"version {version} runs already", code="version_running")


def _check_open(found: Session) -> None:
    if found.ended or found.wanted is Wanted.GONE or found.failure is not None:
        raise errors.Conflict(
            "this session has ended or is ending; start a new one", code="session_ending"
        )
    if found.turns.waiting >= WAITING_MAX:
        raise errors.LimitReached(
            f"{WAITING_MAX} changes of this app wait already; wait until one of them is done",
            code="messages_full",
            retry_after_s=_FULL_RETRY_S,
            limit=WAITING_MAX,
        )
