"""Sessions, templates and keys as JSON: the shapes that the API promises.

The endpoints of users and operators use it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from orchestrator.config import Settings
from orchestrator.domain.people.access import ApiKey
from orchestrator.domain.sessions.bundles import BundleRecord
from orchestrator.domain.sessions.changes import Change, state_of
from orchestrator.domain.sessions.progress import message_of, phase_seconds, progress_of
from orchestrator.domain.sessions.session import Failure, Session, SessionState
from orchestrator.entrypoints.api.answers import base, people
from orchestrator.entrypoints.api.answers import changes as change_answers
from orchestrator.entrypoints.api.answers import sessions as answers
from orchestrator.ports import Template

PROMPT_LISTED_CHARS = 300

Shown = Callable[[datetime], str]  # a time as people see it: Context.shown


@dataclass(frozen=True, kw_only=True)
class SessionDetails:
    """Facts about a session that aren't in its own row. `people/sessions.py` loads them."""

    position: int | None  # in the queue
    change: Change | None  # the one in progress
    offer: Template | None  # a template to start instead of an app that failed


def status(
    session: Session, details: SessionDetails, now: datetime, settings: Settings, shown: Shown
) -> answers.Status:
    """A session as its owner sees it.

    `url` is set as soon as the app runs, and stays set while the app is being changed.
    """
    ready = session.state is SessionState.READY
    return {
        "session_id": session.id,
        "status": session.state,
        "progress": progress_of(session),
        "message": message_of(session),
        "ready": ready,
        "url": settings.addresses.app_url(session.slug)
        if session.is_served and session.slug is not None
        else None,
        "queue_position": details.position,
        "phases": [
            {"name": name, "seconds": seconds}
            for name, seconds in phase_seconds(session, now).items()
        ],
        "attempt": session.attempt,
        "version": session.version,
        "change": None if details.change is None else _change(details.change),
        "waiting": 0 if session.ended else session.turns.waiting,
        "template": session.template,
        "reused": session.reused,
        "prompt": session.prompt,
        "tier": session.tier,
        "created_at": shown(session.created_at),
        "expires_at": shown(session.expires_at),
        "error": _error(session.failure),
        "offer": None
        if details.offer is None
        else {"template": details.offer.name, "title": details.offer.title},
    }


def operator_status(
    session: Session, details: SessionDetails, now: datetime, settings: Settings, shown: Shown
) -> answers.OperatorStatus:
    """A session as operators see it: `status` and more."""
    return {
        **status(session, details, now, settings, shown),
        "user_id": session.user_id,
        "sandbox_id": session.sandbox_id,
        "wanted": session.wanted,
        "slug": session.slug,
        "revision": session.revision,
        "history": [{"state": entry.state, "at": shown(entry.at)} for entry in session.history],
    }


def short_prompt(status: answers.Status) -> answers.ShortPrompt:
    """What replaces a long prompt in a list: its beginning. The session's own status has all."""
    prompt = status["prompt"]
    is_cut = len(prompt) > PROMPT_LISTED_CHARS
    shown = prompt[: PROMPT_LISTED_CHARS - 1] + "…" if is_cut else prompt
    return {"prompt": shown, "prompt_is_cut": is_cut}


def etag(session: Session, position: int | None) -> str:
    """A tag that changes whenever the status changes, except for running times."""
    return f'"{session.revision}-{position or 0}"'


def message(change: Change, session: Session, shown: Shown) -> change_answers.Message:
    """A change as the session's owner sees it. In a session that ended, an open one has failed."""
    error, ended_at = _error(change.failure), change.ended_at
    if ended_at is None and session.ended:
        ended_at = session.state_since
        error = {
            "code": "session_ended",
            "message": "the session ended before this was done",
        }
    return {
        **_change(change),
        "state": state_of(change, session.turns, session_ended=session.ended),
        "created_at": shown(change.created_at),
        "ended_at": None if ended_at is None else shown(ended_at),
        "version": change.version,
        "summary": change.summary,
        "error": error,
    }


def version(
    record: BundleRecord, running: BundleRecord | None, shown: Shown
) -> change_answers.Version:
    """A version of a session's app."""
    return {
        "version": record.version,
        "title": record.title,
        "kind": record.kind,
        "size_bytes": record.size_bytes,
        "created_at": shown(record.created_at),
        "healthy": record.healthy,
        "running": running is not None and running.version == record.version,
        "message": record.change or None,
        "summary": record.summary,
        "provider": record.provider,
    }


def template(entry: Template) -> answers.Template:
    return {
        "name": entry.name,
        "title": entry.title,
        "description": entry.description,
        "kind": entry.kind,
        "keywords": list(entry.keywords),
        "emoji": entry.emoji,
        "accent": entry.accent,
    }


def key(api_key: ApiKey, shown: Shown) -> people.Key:
    return {
        "key_id": api_key.id,
        "name": api_key.name,
        "user_id": api_key.user_id,
        "tier": api_key.tier,
        "role": api_key.role,
        "created_at": shown(api_key.created_at),
        "revoked_at": shown(api_key.revoked_at) if api_key.revoked_at else None,
    }


def templates(catalog: Sequence[Template]) -> answers.Templates:
    return {"templates": [template(entry) for entry in catalog]}


def _change(change: Change) -> answers.ChangeInProgress:
    return {
        "number": change.number,
        "kind": change.kind,
        "text": change.text,
        "restores": change.restores,
    }


def _error(failure: Failure | None) -> base.Error | None:
    return None if failure is None else {"code": failure.code, "message": failure.message}
