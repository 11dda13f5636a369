"""Convert what a JSON column holds to domain values and back. Called by `codec`.

Keys that a newer release has written are ignored, and those that an older one has not written have
their defaults. So both releases may run while one replaces the other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from orchestrator.contract.health import Condition
from orchestrator.domain.ids import HostId
from orchestrator.domain.pool.host import STARTS_AT_ONCE, Losses, StartCurve, Wish
from orchestrator.domain.sessions.change_turns import Turns
from orchestrator.domain.sessions.session import (
    Failure,
    HistoryEntry,
    Move,
    Phase,
    Report,
    SessionState,
)
from orchestrator.domain.sessions.walks import Walked

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

# A dict lookup is faster than calling the enum.
_STATES = {state.value: state for state in SessionState}


def dump(data: Any) -> str:
    return json.dumps(data, separators=(",", ":"))


def history_of(text: str) -> tuple[HistoryEntry, ...]:
    return tuple(
        HistoryEntry(state=_STATES[state], at=_time_of(at)) for state, at in json.loads(text)
    )


def history_text(history: tuple[HistoryEntry, ...]) -> str:
    return dump([[entry.state.value, _microseconds(entry.at)] for entry in history])


def curve_of(text: str) -> StartCurve:
    if not text:
        return StartCurve()
    seconds = (*json.loads(text), *(None,) * STARTS_AT_ONCE)[:STARTS_AT_ONCE]
    return StartCurve(seconds=seconds)


def wish_of(text: str) -> Wish:
    data = json.loads(text)
    return Wish(region=data.get("region", ""), labels=data.get("labels") or {})


def wish_text(wish: Wish) -> str:
    return dump({"region": wish.region, "labels": dict(wish.labels)})


def move_of(text: str) -> Move:
    data = json.loads(text)
    switched_at = data.get("switched_at")
    return Move(
        sandbox_id=data["sandbox_id"],
        switched_at=None if switched_at is None else _time_of(switched_at),
        report=report_of(data.get("report")),
    )


def move_text(move: Move) -> str:
    return dump(
        {
            "sandbox_id": move.sandbox_id,
            "switched_at": None if move.switched_at is None else _microseconds(move.switched_at),
            "report": report_text(move.report),
        }
    )


def walked_of(text: str) -> Walked:
    data = json.loads(text)
    condition, unreached_at = data.get("condition"), data.get("unreached_at")
    return Walked(
        condition=None if condition is None else Condition(condition),
        at=_time_of(data["at"]),
        problem=data.get("problem", ""),
        failed=data.get("failed", 0),
        unreached_at=None if unreached_at is None else _time_of(unreached_at),
    )


def walked_text(walked: Walked) -> str:
    unreached_at = walked.unreached_at
    return dump(
        {
            "condition": walked.condition,
            "at": _microseconds(walked.at),
            "problem": walked.problem,
            "failed": walked.failed,
            "unreached_at": None if unreached_at is None else _microseconds(unreached_at),
        }
    )


def turns_of(text: str) -> Turns:
    data = json.loads(text)
    return Turns(
        requested=data.get("asked", 0),
        finished=data.get("over", 0),
        started=data.get("given", 0),
        tries=data.get("tries", 0),
    )


def turns_text(turns: Turns) -> str:
    counts = {"asked": turns.requested, "over": turns.finished, "given": turns.started}
    return dump({**counts, "tries": turns.tries})


def times_of(text: str) -> tuple[datetime, ...]:
    return tuple(map(_time_of, json.loads(text)))


def times_text(times: Sequence[datetime]) -> str:
    return dump([_microseconds(time) for time in times])


def ports_of(text: str) -> dict[int, datetime]:
    return {int(port): _time_of(until) for port, until in json.loads(text).items()}


def ports_text(ports: Mapping[int, datetime]) -> str:
    return dump({port: _microseconds(until) for port, until in ports.items()})


def hosts_of(text: str) -> dict[HostId, datetime]:
    return {HostId(host_id): _time_of(at) for host_id, at in json.loads(text).items()}


def hosts_text(hosts: Mapping[HostId, datetime]) -> str:
    return dump({host_id: _microseconds(at) for host_id, at in hosts.items()})


def losses_of(text: str) -> Losses:
    if not text:
        return Losses()
    data = json.loads(text)
    until = data.get("until")
    return Losses(
        owners={owner: _time_of(at) for owner, at in data.get("owners", {}).items()},
        in_a_row=data.get("in_a_row", 0),
        until=None if until is None else _time_of(until),
    )


def losses_text(losses: Losses) -> str:
    return dump(
        {
            "owners": {owner: _microseconds(at) for owner, at in losses.owners.items()},
            "in_a_row": losses.in_a_row,
            "until": None if losses.until is None else _microseconds(losses.until),
        }
    )


def _time_of(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)


def _microseconds(time: datetime) -> int:
    """Microseconds since 1970: a whole number, so that no precision is lost."""
    return (time - _EPOCH) // _MICROSECOND


def report_of(text: str | None) -> Report | None:
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


def report_text(report: Report | None) -> str | None:
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
    return dump(data)


def failure_of(text: str | None) -> Failure | None:
    return None if text is None else _failure_from(json.loads(text))


def _failure_from(data: dict[str, Any]) -> Failure:
    return Failure(
        code=data["code"],
        message=data.get("message", ""),
        permanent=data.get("permanent", True),
        counts_as_attempt=data.get("burns", True),
    )


def failure_text(failure: Failure | None) -> str | None:
    return None if failure is None else dump(_failure_data(failure))


def _failure_data(failure: Failure) -> dict[str, Any]:
    data = {"code": failure.code, "message": failure.message, "permanent": failure.permanent}
    return data if failure.counts_as_attempt else {**data, "burns": False}
