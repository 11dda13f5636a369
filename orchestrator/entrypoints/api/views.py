"""Sessions, templates and keys as JSON: the shapes that the API promises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from orchestrator.config import Settings
from orchestrator.domain.people.access import ApiKey
from orchestrator.domain.sessions.bundles import BundleRecord
from orchestrator.domain.sessions.changes import Change, state_of
from orchestrator.domain.sessions.progress import message_of, phase_seconds, progress_of
from orchestrator.domain.sessions.session import Failure, Session, SessionState
from orchestrator.ports import Template


@dataclass(frozen=True, kw_only=True)
class Beside:
    """What belongs to a session and isn't in its row."""

    position: int | None  # in the queue
    change: Change | None  # that is under way
    offer: Template | None  # what could be had instead of what failed


def status(found: Session, beside: Beside, now: datetime, settings: Settings) -> dict[str, Any]:
    """What a person may know of a session. The URL is there once the app is, and stays while the
    app is being changed."""
    ready = found.state is SessionState.READY
    return {
        "session_id": found.id,
        "status": found.state,
        "progress": progress_of(found),
        "message": message_of(found),
        "ready": ready,
        "url": settings.addresses.app_url(found.slug)
        if found.served and found.slug is not None
        else None,
        "queue_position": beside.position,
        "phases": [
            {"name": name, "seconds": seconds}
            for name, seconds in phase_seconds(found, now).items()
        ],
        "attempt": found.attempt,
        "version": found.version,
        "change": None if beside.change is None else _under_way(beside.change),
        "waiting": 0 if found.ended else found.turns.waiting,
        "template": found.template,
        "reused": found.reused,
        "prompt": found.prompt,
        "tier": found.tier,
        "created_at": found.created_at.isoformat(),
        "expires_at": found.expires_at.isoformat(),
        "error": _error(found.failure),
        "offer": None
        if beside.offer is None
        else {"template": beside.offer.name, "title": beside.offer.title},
    }


def operator_status(
    found: Session, beside: Beside, now: datetime, settings: Settings
) -> dict[str, Any]:
    """The same, and what only operators see."""
    return {
        **status(found, beside, now, settings),
        "user_id": found.user_id,
        "sandbox_id": found.sandbox_id,
        "wanted": found.wanted,
        "slug": found.slug,
        "revision": found.revision,
        "history": [
            {"state": entered.state, "at": entered.at.isoformat()} for entered in found.history
        ],
    }


def etag(found: Session, position: int | None) -> str:
    """Changes whenever something that a person sees does, bar the clock."""
    return f'"{found.revision}-{position or 0}"'


def message(one: Change, found: Session) -> dict[str, Any]:
    """A change as who asked for it sees it."""
    error, ended_at = _error(one.failure), one.ended_at
    if ended_at is None and found.ended:
        ended_at = found.state_since
        said = "the session ended before this was done"
        error = {"code": "session_ended", "message": said}
    return {
        **_under_way(one),
        "state": state_of(one, found.turns, session_ended=found.ended),
        "created_at": one.created_at.isoformat(),
        "ended_at": None if ended_at is None else ended_at.isoformat(),
        "version": one.version,
        "summary": one.summary,
        "error": error,
    }


def version(one: BundleRecord, running: BundleRecord | None) -> dict[str, Any]:
    """A version of a session's app."""
    return {
        "version": one.version,
        "title": one.title,
        "kind": one.kind,
        "size_bytes": one.size_bytes,
        "created_at": one.created_at.isoformat(),
        "healthy": one.healthy,
        "running": running is not None and running.version == one.version,
        "message": one.change or None,
        "summary": one.summary,
        "provider": one.provider,
    }


def template(one: Template) -> dict[str, Any]:
    return {
        "name": one.name,
        "title": one.title,
        "description": one.description,
        "kind": one.kind,
        "keywords": list(one.keywords),
        "emoji": one.emoji,
        "accent": one.accent,
    }


def key(one: ApiKey) -> dict[str, Any]:
    return {
        "key_id": one.id,
        "name": one.name,
        "user_id": one.user_id,
        "tier": one.tier,
        "role": one.role,
        "created_at": one.created_at.isoformat(),
        "revoked_at": one.revoked_at.isoformat() if one.revoked_at else None,
    }


def templates(all_of_them: Sequence[Template]) -> dict[str, Any]:
    return {"templates": [template(one) for one in all_of_them]}


def _under_way(one: Change) -> dict[str, Any]:
    return {"number": one.number, "kind": one.kind, "text": one.text, "restores": one.restores}


def _error(failure: Failure | None) -> dict[str, str] | None:
    return None if failure is None else {"code": failure.code, "message": failure.message}
