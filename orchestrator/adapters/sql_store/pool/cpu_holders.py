"""Which sandboxes may have the wrong CPU limit. SqlSandboxes calls this for ports.Sandboxes.

Two reads, each of few rows by an index: the plain READY ones, which are most, are in neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.engine import Connection

from orchestrator.adapters.sql_store import json_columns, schema
from orchestrator.domain.pool.cpu_limits import CpuHolder, CpuUse
from orchestrator.domain.pool.sandbox import SandboxState
from orchestrator.domain.sessions.progress import work_began_at
from orchestrator.domain.sessions.session import SessionState

_b = schema.sandboxes.c
_s = schema.sessions.c
_COLUMNS = (
    _b.id,
    _b.host_id,
    _b.container_id,
    _b.raised,
    _b.state,
    _b.state_since,
    _s.state,
    _s.sandbox_id,
    _s.history,
)
_HAS_CONTAINER = _b.container_id.is_not(None)
_UNSETTLED = (
    select(*_COLUMNS)
    .select_from(schema.sandboxes.outerjoin(schema.sessions, _s.id == _b.session_id))
    # The table's name tells `state` from the session's.
    .where(
        text(
            "((sandboxes.raised AND sandboxes.state = 'claimed')"
            " OR (NOT sandboxes.raised AND sandboxes.state = 'warm'))"
        ),
        _HAS_CONTAINER,
    )
)
_IN_PROGRESS = (
    select(*_COLUMNS)
    .select_from(schema.sessions.join(schema.sandboxes, _b.id == _s.sandbox_id))
    .where(
        text(f"sessions.{schema.SESSION_IN_PROGRESS}"),
        _b.state == SandboxState.CLAIMED.value,
        _HAS_CONTAINER,
    )
)


def read(connection: Connection) -> Sequence[CpuHolder]:
    """ports.Sandboxes.cpu_holders."""
    rows = [*connection.execute(_UNSETTLED), *connection.execute(_IN_PROGRESS)]
    holders = {holder.sandbox_id: holder for holder in map(_holder_of, rows)}
    return list(holders.values())


def _holder_of(row: Sequence[Any]) -> CpuHolder:
    sandbox_id, host_id, container_id, raised, state, since, session_state, serves, history = row
    use = CpuUse.WORKING
    if state == SandboxState.WARM.value:
        use = CpuUse.WAITING
    elif sandbox_id == serves:  # otherwise a session moves to it
        entries = json_columns.history_of(history)
        since = work_began_at(entries)
        if session_state == SessionState.READY.value:
            use, since = CpuUse.SERVING, entries[-1].at
    return CpuHolder(
        sandbox_id=sandbox_id,
        host_id=host_id,
        container_id=container_id,
        raised=raised,
        use=use,
        since=since,
    )
