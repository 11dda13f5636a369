"""What an agent sends the control plane: reports of how an assignment goes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from orchestrator.contract.wire.fields import Fields

MESSAGE_MAX_CHARS = 200
SUMMARY_MAX_CHARS = 4_000
FAILURE_MAX_CHARS = 4_000
LOG_LINES_MAX = 200
LOG_LINE_MAX_CHARS = 2_000
LOGS_MAX_BYTES = 256 * 1024
"""Of the lines in a report as JSON, in which a character can take twelve bytes."""
REPORT_MAX_BYTES = LOGS_MAX_BYTES + 160 * 1024
"""Of a report as JSON: its lines and the longest texts beside them."""
# More and longer lines than an agent sends: an agent of another version may have other limits.
_LOG_LINES_TAKEN = 500
_LOG_LINE_TAKEN_CHARS = 4_000
_SEQ_MAX = 2**31 - 1
_CODE = re.compile("[a-z_]{1,40}")


class Phase(StrEnum):
    """What an agent says it is doing."""

    GENERATING = "generating"  # the model writes the app
    DEPLOYING = "deploying"  # the source is there or on its way, the app is being started
    READY = "ready"  # the app answered inside the sandbox
    FAILED = "failed"  # the agent gave up; the report carries the failure


class FailureCode(StrEnum):
    """Why an assignment came to nothing. A control plane also takes codes that it doesn't know."""

    APP_NOT_READY = "app_not_ready"  # never answered, or exited during its start
    APP_CRASHED = "app_crashed"  # kept crashing after it had been ready
    APP_NOT_HEALTHY = "app_not_healthy"  # written and repaired, and still fails its check
    BUNDLE_INVALID = "bundle_invalid"  # control plane or agent refuses the bundle
    BUNDLE_FETCH_FAILED = "bundle_fetch_failed"  # the control plane didn't hand it out in time
    NO_ROOM = "no_room"  # the sandbox can't hold a second copy of the app's data
    GENERATION_FAILED = "generation_failed"  # the model gave no usable files
    BUDGET_EXHAUSTED = "budget_exhausted"  # no budget is left; the message says when it renews
    PROVIDER_AUTH = "provider_auth"  # the gateway's key or our token was refused
    PROVIDER_NO_CREDIT = "provider_no_credit"  # the account of the gateway's key is empty
    PROVIDER_UNAVAILABLE = "provider_unavailable"  # rate limit, overload, no connection
    REFUSED = "refused"  # the model declined the request


TEMPORARY = frozenset({FailureCode.BUNDLE_FETCH_FAILED, FailureCode.PROVIDER_UNAVAILABLE})
"""After these the same assignment may succeed elsewhere or later."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why an assignment, or the app that serves, came to nothing."""

    code: str  # a FailureCode, or one of a newer agent
    message: str  # for people; may end with the app's last lines
    permanent: bool = True

    def as_json(self) -> dict[str, Any]:
        return {"code": str(self.code), "message": self.message, "permanent": self.permanent}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How an assignment ended that began while another app was serving."""

    failure: Failure | None = None  # set: the app that was there before goes on

    def as_json(self) -> dict[str, Any]:
        return {"ok": True} if self.failure is None else {"ok": False, **self.failure.as_json()}


@dataclass(frozen=True, kw_only=True)
class Report:
    """One progress report."""

    seq: int  # from 1 on; grows with every report of an assignment
    phase: Phase
    progress: int  # 0..100
    message: str  # one line for people
    logs: tuple[str, ...] = ()  # the app's output since the report before
    failure: Failure | None = None  # FAILED
    summary: str | None = None  # READY: what the model says that it did
    outcome: Outcome | None = None  # READY, if another app was serving when the assignment began

    def as_json(self) -> dict[str, Any]:
        return {
            "seq": self.seq,
            "phase": self.phase.value,
            "progress": self.progress,
            "message": self.message,
            "logs": list(self.logs),
            "error": None if self.failure is None else self.failure.as_json(),
            "summary": self.summary,
            "change": None if self.outcome is None else self.outcome.as_json(),
        }


def parse_report(document: object) -> Report:
    """Read a decoded report. Raises ProtocolError."""
    given = Fields(document, "report")
    error, change = given.child("error"), given.child("change")
    return Report(
        seq=given.whole("seq", least=1, most=_SEQ_MAX),
        phase=given.choice("phase", Phase),
        progress=given.whole("progress", most=100),
        message=_text(given, "message", MESSAGE_MAX_CHARS) or "",
        logs=given.texts("logs", most=_LOG_LINES_TAKEN, longest=_LOG_LINE_TAKEN_CHARS),
        failure=None if error is None else _failure(error),
        summary=_text(given, "summary", SUMMARY_MAX_CHARS),
        outcome=None if change is None else _outcome(change),
    )


def _failure(given: Fields) -> Failure:
    return Failure(
        code=_code(given),
        message=given.text("message", longest=FAILURE_MAX_CHARS, empty=True),
        permanent=given.flag("permanent", default=True),
    )


def _outcome(given: Fields) -> Outcome:
    if given.flag("ok"):
        return Outcome()
    return Outcome(
        failure=Failure(
            code=_code(given) if given.has("code") else FailureCode.GENERATION_FAILED,
            message=_text(given, "message", FAILURE_MAX_CHARS) or "",
            permanent=given.flag("permanent", default=True),
        )
    )


def _code(given: Fields) -> str:
    code = given.text("code")
    if not _CODE.fullmatch(code):
        raise given.wrong("code", "must be 1 to 40 small letters or underscores")
    return code


def _text(given: Fields, name: str, longest: int) -> str | None:
    return given.text(name, longest=longest, empty=True) if given.has(name) else None
