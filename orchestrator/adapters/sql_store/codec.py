"""Convert rows to domain values and back. The other modules of this package call it.

They select the columns listed here, in this order. `session_of` and `sandbox_of` read a row by
position, which is faster than by name: `session_of` runs at every poll of a status.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from orchestrator.adapters.sql_store import json_columns, schema
from orchestrator.domain.pool.host import Drain, Host, HostState, Losses, Wish
from orchestrator.domain.pool.sandbox import Sandbox, SandboxState
from orchestrator.domain.sessions.bundles import BundleRecord
from orchestrator.domain.sessions.change_turns import Turns
from orchestrator.domain.sessions.changes import Change
from orchestrator.domain.sessions.priority import rank_of
from orchestrator.domain.sessions.session import (
    Session,
    SessionState,
    Tier,
    Wanted,
)

# A dict lookup is faster than calling the enum.
_SESSION_STATES = {state.value: state for state in SessionState}
_WANTED = {wanted.value: wanted for wanted in Wanted}
_TIERS = {tier.value: tier for tier in Tier}

_NO_WISH = Wish()
_NO_TURNS = Turns()
_NO_LOSSES = Losses()

_s = schema.sessions.c
SESSION = (
    _s.id,
    _s.user_id,
    _s.tier,
    _s.prompt,
    _s.template,
    _s.bundle,
    _s.state,
    _s.wanted,
    _s.slug,
    _s.sandbox_id,
    _s.attempt,
    _s.version,
    _s.report,
    _s.failure,
    _s.ttl_s,
    _s.due_at,
    _s.deadline_at,
    _s.expires_at,
    _s.created_at,
    _s.updated_at,
    _s.history,
    _s.revision,
    _s.wish,
    _s.refused_by,
    _s.move,
    _s.turns,
    _s.reused,
    _s.crashes,
    _s.history_dropped,
    _s.lost_on,
    _s.walked,
)

_b = schema.sandboxes.c
SANDBOX = (
    _b.id,
    _b.host_id,
    _b.session_id,
    _b.state,
    _b.slug,
    _b.port,
    _b.image,
    _b.container_id,
    _b.agent_seen_at,
    _b.routed,
    _b.reason,
    _b.created_at,
    _b.state_since,
    _b.generation,
    _b.started_with,
    _b.ended_by_host,
    _b.raised,
)

# Columns for the store's own use: no part of the Host value.
_STORE_ONLY = frozenset({"port_cursor", "used"})
HOST = tuple(column for column in schema.hosts.c if column.name not in _STORE_ONLY)
BUNDLE = tuple(schema.bundles.c)
CHANGE = tuple(column for column in schema.changes.c if column.name != "idempotency_key")


def session_of(row: Sequence[Any]) -> Session:
    """The Session in a row of the SESSION columns."""
    return Session(
        id=row[0],
        user_id=row[1],
        tier=_TIERS[row[2]],
        prompt=row[3],
        template=row[4],
        bundle=row[5],
        state=_SESSION_STATES[row[6]],
        wanted=_WANTED[row[7]],
        slug=row[8],
        sandbox_id=row[9],
        attempt=row[10],
        version=row[11],
        report=json_columns.report_of(row[12]),
        failure=json_columns.failure_of(row[13]),
        ttl_s=row[14],
        due_at=row[15],
        deadline_at=row[16],
        expires_at=row[17],
        created_at=row[18],
        updated_at=row[19],
        history=json_columns.history_of(row[20]),
        revision=row[21],
        wish=_NO_WISH if row[22] is None else json_columns.wish_of(row[22]),
        refused_by=() if row[23] is None else tuple(json.loads(row[23])),
        move=None if row[24] is None else json_columns.move_of(row[24]),
        turns=_NO_TURNS if row[25] is None else json_columns.turns_of(row[25]),
        reused=row[26],
        crashes=() if row[27] is None else json_columns.times_of(row[27]),
        history_dropped=row[28],
        lost_on={} if row[29] is None else json_columns.hosts_of(row[29]),
        walked=None if row[30] is None else json_columns.walked_of(row[30]),
    )


def session_values(session: Session) -> dict[str, Any]:
    """The values of a session's columns, by name, without the idempotency columns."""
    return {
        "id": session.id,
        "user_id": session.user_id,
        "tier": session.tier.value,
        "rank": rank_of(session),
        "prompt": session.prompt,
        "template": session.template,
        "bundle": session.bundle,
        "state": session.state.value,
        "wanted": session.wanted.value,
        "slug": session.slug,
        "sandbox_id": session.sandbox_id,
        "attempt": session.attempt,
        "version": session.version,
        "report": json_columns.report_text(session.report),
        "failure": json_columns.failure_text(session.failure),
        "ttl_s": session.ttl_s,
        "due_at": session.due_at,
        "deadline_at": session.deadline_at,
        "expires_at": session.expires_at,
        "created_at": session.created_at,
        "updated_at": session.updated_at,
        "history": json_columns.history_text(session.history),
        "revision": session.revision,
        "wish": json_columns.wish_text(session.wish) if session.wish else None,
        "refused_by": json_columns.dump(session.refused_by) if session.refused_by else None,
        "move": None if session.move is None else json_columns.move_text(session.move),
        "turns": None if session.turns == _NO_TURNS else json_columns.turns_text(session.turns),
        "reused": session.reused,
        "crashes": json_columns.times_text(session.crashes) if session.crashes else None,
        "history_dropped": session.history_dropped,
        "lost_on": json_columns.hosts_text(session.lost_on) if session.lost_on else None,
        "walked": None if session.walked is None else json_columns.walked_text(session.walked),
    }


def sandbox_of(row: Sequence[Any]) -> Sandbox:
    """The Sandbox in a row of the SANDBOX columns."""
    return Sandbox(
        id=row[0],
        host_id=row[1],
        session_id=row[2],
        state=SandboxState(row[3]),
        slug=row[4],
        port=row[5],
        image=row[6],
        container_id=row[7],
        agent_seen_at=row[8],
        routed=row[9],
        reason=row[10],
        created_at=row[11],
        state_since=row[12],
        generation=row[13],
        started_with=row[14],
        ended_by_host=row[15],
        raised=row[16],
    )


def sandbox_values(sandbox: Sandbox) -> dict[str, Any]:
    return {
        **{column.name: getattr(sandbox, column.name) for column in SANDBOX},
        "state": sandbox.state.value,
    }


def host_of(row: Sequence[Any]) -> Host:
    """The Host in a row that starts with the HOST columns."""
    fields = {column.name: value for column, value in zip(HOST, row, strict=False)}
    return Host(
        **{
            **fields,
            "state": HostState(fields["state"]),
            "drain": Drain(fields["drain"]),
            "labels": json.loads(fields["labels"] or "{}"),
            "starts": json_columns.curve_of(fields["starts"]),
            "taken_ports": json_columns.ports_of(fields["taken_ports"] or "{}"),
            "losses": json_columns.losses_of(fields["losses"]),
        }
    )


def host_values(host: Host) -> dict[str, Any]:
    return {
        **{column.name: getattr(host, column.name) for column in HOST},
        "state": host.state.value,
        "drain": host.drain.value,
        "labels": json_columns.dump(dict(host.labels)) if host.labels else "",
        "starts": json_columns.dump(host.starts.seconds) if any(host.starts.seconds) else "",
        "taken_ports": json_columns.ports_text(host.taken_ports) if host.taken_ports else "",
        "losses": json_columns.losses_text(host.losses) if host.losses != _NO_LOSSES else "",
    }


def bundle_of(row: Sequence[Any]) -> BundleRecord:
    """The BundleRecord in a row of the BUNDLE columns."""
    return BundleRecord(**{column.name: value for column, value in zip(BUNDLE, row, strict=True)})


def bundle_values(record: BundleRecord) -> dict[str, Any]:
    return {column.name: getattr(record, column.name) for column in BUNDLE}


def change_of(row: Sequence[Any]) -> Change:
    """The Change in a row of the CHANGE columns."""
    fields = {column.name: value for column, value in zip(CHANGE, row, strict=True)}
    return Change(**{**fields, "failure": json_columns.failure_of(fields["failure"])})


def change_values(change: Change) -> dict[str, Any]:
    return {
        **{column.name: getattr(change, column.name) for column in CHANGE},
        "failure": json_columns.failure_text(change.failure),
    }
