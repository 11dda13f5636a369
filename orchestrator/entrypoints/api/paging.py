"""Pages of long lists. A response names the cursor of the next page, or null after the last one.

Used by the endpoints that list sessions, messages and the audit log.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import Query

from orchestrator.domain import errors
from orchestrator.domain.ids import SessionId
from orchestrator.domain.sessions.changes import Change
from orchestrator.domain.sessions.session import Session
from orchestrator.ports import AuditEntry, SessionPosition

# Each text of these forms names a place, so that the OpenAPI document can say what is accepted.
# Whether the session has ended, when it was created in microseconds of the epoch, and the end of
# its id. Seventeen digits last until the year 5138.
_SESSION = re.compile(r"([01])\.(0|[1-9][0-9]{0,16})\.([a-z2-7]{26})")
_NUMBER = re.compile(r"[1-9][0-9]{0,17}")  # fits into 63 bits
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

Limit = Annotated[int, Query(ge=1, le=1000, description="How many at most.")]


def _cursor(form: re.Pattern[str]) -> object:
    return Query(
        description="`next` of the page before; none: the first.",
        json_schema_extra={"anyOf": [{"type": "string", "pattern": f"^{form.pattern}$"}]},
    )


SessionCursor = Annotated[str | None, _cursor(_SESSION)]
NumberCursor = Annotated[str | None, _cursor(_NUMBER)]


def session_position(cursor: str | None) -> SessionPosition | None:
    """Where the page starts. Raises InvalidInput (bad_cursor)."""
    if cursor is None:
        return None
    match = _SESSION.fullmatch(cursor)
    if match is None:
        raise _bad_cursor()
    ended, created_us, tail = match.groups()
    return SessionPosition(
        ended=ended == "1",
        created_at=_EPOCH + int(created_us) * _MICROSECOND,
        session_id=SessionId(f"ses_{tail}"),
    )


def next_sessions(page: Sequence[Session], limit: int) -> str | None:
    """The cursor of the page after this one; None if this one is the last."""
    if len(page) < limit:
        return None
    last = page[-1]
    created_us = (last.created_at - _EPOCH) // _MICROSECOND
    return f"{last.ended:d}.{created_us}.{last.id.removeprefix('ses_')}"


def audit_position(cursor: str | None) -> int | None:
    """The number of the last entry of the page before. Raises InvalidInput (bad_cursor)."""
    return _number(cursor)


def next_entries(page: Sequence[AuditEntry], limit: int) -> str | None:
    """The cursor of the page after this one; None if this one is the last."""
    return str(page[-1].number) if len(page) == limit else None


def change_position(cursor: str | None) -> int | None:
    """The number of the first change of the page before. Raises InvalidInput (bad_cursor)."""
    return _number(cursor)


def next_changes(page: Sequence[Change]) -> str | None:
    """The cursor of the changes before these; None if there are none."""
    return str(page[0].number) if page and page[0].number > 1 else None


def _number(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    if _NUMBER.fullmatch(cursor) is None:
        raise _bad_cursor()
    return int(cursor)


def _bad_cursor() -> errors.InvalidInput:
    return errors.InvalidInput(
        "this is no cursor of ours: take `next` of the page before, or leave it out",
        code="bad_cursor",
        field="cursor",
    )
