"""Pages of long lists. A response names the cursor of the next page, or null after the last one.

Used by the endpoints that list sessions, messages and the audit log.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

from fastapi import Query

from orchestrator.domain import errors, ids
from orchestrator.domain.ids import SessionId
from orchestrator.domain.sessions.changes import Change
from orchestrator.domain.sessions.session import Session
from orchestrator.ports import AuditEntry, SessionPosition

_CURSOR_MAX_CHARS = 200

Limit = Annotated[int, Query(ge=1, le=1000, description="How many at most.")]
Cursor = Annotated[
    str | None,
    Query(max_length=_CURSOR_MAX_CHARS, description="`next` of the page before; none: the first."),
]


def session_position(cursor: str | None) -> SessionPosition | None:
    """Where the page starts. Raises InvalidInput (bad_cursor)."""
    if cursor is None:
        return None
    match _decode(cursor):
        case [bool(ended), str(created_at), str(session_id)] if ids.is_id(session_id, "ses"):
            return SessionPosition(
                ended=ended, created_at=_time(created_at), session_id=SessionId(session_id)
            )
    raise _bad_cursor()


def next_sessions(page: Sequence[Session], limit: int) -> str | None:
    """The cursor of the page after this one; None if this one is the last."""
    if len(page) < limit:
        return None
    last = page[-1]
    return _encode([last.ended, last.created_at.isoformat(), last.id])


def audit_position(cursor: str | None) -> int | None:
    """The number of the last entry of the page before. Raises InvalidInput (bad_cursor)."""
    return _number(cursor)


def next_entries(page: Sequence[AuditEntry], limit: int) -> str | None:
    """The cursor of the page after this one; None if this one is the last."""
    return _encode([page[-1].number]) if len(page) == limit else None


def change_position(cursor: str | None) -> int | None:
    """The number of the first change of the page before. Raises InvalidInput (bad_cursor)."""
    return _number(cursor)


def next_changes(page: Sequence[Change]) -> str | None:
    """The cursor of the changes before these; None if there are none."""
    return _encode([page[0].number]) if page and page[0].number > 1 else None


def _number(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    match _decode(cursor):
        case [int(number)] if type(number) is int and 0 < number < 2**63:  # True is one, too
            return number
    raise _bad_cursor()


def _encode(position: Sequence[object]) -> str:
    return base64.urlsafe_b64encode(json.dumps(position).encode()).decode().rstrip("=")


def _decode(cursor: str) -> object:
    try:
        return json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, RecursionError) as error:
        raise _bad_cursor() from error


def _time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
        if time.tzinfo is None:
            raise _bad_cursor()
        return time.astimezone(UTC)
    except (ValueError, OverflowError) as error:  # in UTC, some of them lie before the year 1
        raise _bad_cursor() from error


def _bad_cursor() -> errors.InvalidInput:
    return errors.InvalidInput(
        "this is no cursor of ours: take `next` of the page before, or leave it out",
        code="bad_cursor",
        field="cursor",
    )
