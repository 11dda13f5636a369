"""Sessions, templates and keys as JSON: the shapes that the API promises."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from orchestrator.config import Settings
from orchestrator.domain.access import ApiKey
from orchestrator.domain.session import (
    Session,
    SessionState,
    message_of,
    phase_seconds,
    progress_of,
)
from orchestrator.ports import Template


def status(
    found: Session, position: int | None, now: datetime, settings: Settings
) -> dict[str, Any]:
    """What a person may know of a session. The URL is there once the app is."""
    ready = found.state is SessionState.READY
    return {
        "session_id": found.id,
        "status": found.state,
        "progress": progress_of(found),
        "message": message_of(found),
        "ready": ready,
        "url": settings.app_url(found.slug) if ready and found.slug is not None else None,
        "queue_position": position,
        "phases": [
            {"name": name, "seconds": seconds}
            for name, seconds in phase_seconds(found, now).items()
        ],
        "attempt": found.attempt,
        "version": found.version,
        "template": found.template,
        "prompt": found.prompt,
        "tier": found.tier,
        "created_at": found.created_at.isoformat(),
        "expires_at": found.expires_at.isoformat(),
        "error": _error(found),
    }


def operator_status(
    found: Session, position: int | None, now: datetime, settings: Settings
) -> dict[str, Any]:
    """The same, and what only operators see."""
    return {
        **status(found, position, now, settings),
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


def _error(found: Session) -> dict[str, str] | None:
    if found.failure is None:
        return None
    return {"code": found.failure.code, "message": found.failure.message}
