"""Convert rows to domain values and back. The other modules of this package call it.

Keys of a JSON column that a newer release has written are ignored, and those that an older one has
not written have their defaults. So both releases may run while one replaces the other.

They select the columns listed here, in this order. `session_of` and `sandbox_of` read a row by
position, which is faster than by name: `session_of` runs at every poll of a status.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from orchestrator.adapters.sql_store import schema
from orchestrator.domain.pool.host import STARTS_AT_ONCE, Drain, Host, HostState, StartCurve, Wish
from orchestrator.domain.pool.sandbox import Sandbox, SandboxState
from orchestrator.domain.sessions.bundles import BundleRecord
from orchestrator.domain.sessions.change_turns import Turns
from orchestrator.domain.sessions.changes import Change
from orchestrator.domain.sessions.priority import rank_of
from orchestrator.domain.sessions.session import (
    Failure,
    HistoryEntry,
    Move,
    Phase,
    Report,
    Session,
    SessionState,
    Tier,
    Wanted,
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

# A dict lookup is faster than calling the enum.
_SESSION_STATES = {state.value: state for state in SessionState}
_WANTED = {wanted.value: wanted for wanted in Wanted}
_TIERS = {tier.value: tier for tier in Tier}

_NO_WISH = Wish()
_NO_TURNS = Turns()

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
    _s.probes,
    _s.history_dropped,
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
        report=_report_of(row[12]),
        failure=_failure_of(row[13]),
        ttl_s=row[14],
        due_at=row[15],
        deadline_at=row[16],
        expires_at=row[17],
        created_at=row[18],
        updated_at=row[19],
        history=_history_of(row[20]),
        revision=row[21],
        wish=_NO_WISH if row[22] is None else _wish_of(row[22]),
        refused_by=() if row[23] is None else tuple(json.loads(row[23])),
        move=None if row[24] is None else _move_of(row[24]),
        turns=_NO_TURNS if row[25] is None else _turns_of(row[25]),
        reused=row[26],
        crashes=() if row[27] is None else tuple(map(_time_of, json.loads(row[27]))),
        probes=row[28],
        history_dropped=row[29],
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
        "report": _report_text(session.report),
        "failure": _failure_text(session.failure),
        "ttl_s": session.ttl_s,
        "due_at": session.due_at,
        "deadline_at": session.deadline_at,
        "expires_at": session.expires_at,
        "created_at": session.created_at,
        "updated_at": session.updated_at,
        "history": _history_text(session.history),
        "revision": session.revision,
        "wish": _wish_text(session.wish) if session.wish else None,
        "refused_by": _dump(session.refused_by) if session.refused_by else None,
        "move": None if session.move is None else _move_text(session.move),
        "turns": None if session.turns == _NO_TURNS else _turns_text(session.turns),
        "reused": session.reused,
        "crashes": _dump([_microseconds(at) for at in session.crashes])
        if session.crashes
        else None,
        "probes": session.probes,
        "history_dropped": session.history_dropped,
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
            "starts": _curve_of(fields["starts"]),
            "taken_ports": {
                int(port): _time_of(until)
                for port, until in json.loads(fields["taken_ports"] or "{}").items()
            },
        }
    )


def host_values(host: Host) -> dict[str, Any]:
    return {
        **{column.name: getattr(host, column.name) for column in HOST},
        "state": host.state.value,
        "drain": host.drain.value,
        "labels": _dump(dict(host.labels)) if host.labels else "",
        "starts": _dump(host.starts.seconds) if any(host.starts.seconds) else "",
        "taken_ports": _dump(
            {port: _microseconds(until) for port, until in host.taken_ports.items()}
        )
        if host.taken_ports
        else "",
    }


def bundle_of(row: Sequence[Any]) -> BundleRecord:
    """The BundleRecord in a row of the BUNDLE columns."""
    return BundleRecord(**{column.name: value for column, value in zip(BUNDLE, row, strict=True)})


def bundle_values(record: BundleRecord) -> dict[str, Any]:
    return {column.name: getattr(record, column.name) for column in BUNDLE}


def change_of(row: Sequence[Any]) -> Change:
    """The Change in a row of the CHANGE columns."""
    fields = {column.name: value for column, value in zip(CHANGE, row, strict=True)}
    return Change(**{**fields, "failure": _failure_of(fields["failure"])})


def change_values(change: Change) -> dict[str, Any]:
    return {
        **{column.name: getattr(change, column.name) for column in CHANGE},
        "failure": _failure_text(change.failure),
    }


def _history_of(text: str) -> tuple[HistoryEntry, ...]:
    return tuple(
        HistoryEntry(state=_SESSION_STATES[state], at=_time_of(at))
        for state, at in json.loads(text)
    )


def _history_text(history: tuple[HistoryEntry, ...]) -> str:
    return _dump([[entry.state.value, _microseconds(entry.at)] for entry in history])


def _curve_of(text: str) -> StartCurve:
    if not text:
        return StartCurve()
    seconds = (*json.loads(text), *(None,) * STARTS_AT_ONCE)[:STARTS_AT_ONCE]
    return StartCurve(seconds=seconds)


def _wish_of(text: str) -> Wish:
    data = json.loads(text)
    return Wish(region=data.get("region", ""), labels=data.get("labels") or {})


def _wish_text(wish: Wish) -> str:
    return _dump({"region": wish.region, "labels": dict(wish.labels)})


def _move_of(text: str) -> Move:
    data = json.loads(text)
    switched_at = data.get("switched_at")
    return Move(
        sandbox_id=data["sandbox_id"],
        switched_at=None if switched_at is None else _time_of(switched_at),
        report=_report_of(data.get("report")),
    )


def _move_text(move: Move) -> str:
    return _dump(
        {
            "sandbox_id": move.sandbox_id,
            "switched_at": None if move.switched_at is None else _microseconds(move.switched_at),
            "report": _report_text(move.report),
        }
    )


def _turns_of(text: str) -> Turns:
    data = json.loads(text)
    return Turns(
        requested=data.get("asked", 0),
        finished=data.get("over", 0),
        started=data.get("given", 0),
        tries=data.get("tries", 0),
    )


def _turns_text(turns: Turns) -> str:
    counts = {"asked": turns.requested, "over": turns.finished, "given": turns.started}
    return _dump({**counts, "tries": turns.tries})


def _time_of(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)


def _microseconds(time: datetime) -> int:
    """Microseconds since 1970: a whole number, so that no precision is lost."""
    return (time - _EPOCH) // _MICROSECOND


def _report_of(text: str | None) -> Report | None:
    if text is None:
        return None
    data = json.loads(text)
    failure, setback = data.get("failure"), data.get("setback")
    return Report(
        seq=data["seq"],
        phase=Phase(data["phase"]),
        progress=data.get("progress", 0),
        message=data.get("message", ""),
        failure=None if failure is None else _failure_from(failure),
        summary=data.get("summary", ""),
        setback=None if setback is None else _failure_from(setback),
    )


def _report_text(report: Report | None) -> str | None:
    if report is None:
        return None
    failure = report.failure
    data = {
        "seq": report.seq,
        "phase": report.phase.value,
        "progress": report.progress,
        "message": report.message,
        "failure": None if failure is None else _failure_data(failure),
    }
    if report.summary:
        data["summary"] = report.summary
    if report.setback is not None:
        data["setback"] = _failure_data(report.setback)
    return _dump(data)


def _failure_of(text: str | None) -> Failure | None:
    return None if text is None else _failure_from(json.loads(text))


def _failure_from(data: dict[str, Any]) -> Failure:
    return Failure(
        code=data["code"],
        message=data.get("message", ""),
        permanent=data.get("permanent", True),
        counts_as_attempt=data.get("burns", True),
    )


def _failure_text(failure: Failure | None) -> str | None:
    return None if failure is None else _dump(_failure_data(failure))


def _failure_data(failure: Failure) -> dict[str, Any]:
    data = {"code": failure.code, "message": failure.message, "permanent": failure.permanent}
    return data if failure.counts_as_attempt else {**data, "burns": False}


def _dump(data: Any) -> str:
    return json.dumps(data, separators=(",", ":"))
