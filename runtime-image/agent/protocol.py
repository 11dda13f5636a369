"""What home and agent say to each other, as values. Pure; used by every other module.

The wire format is JSON over HTTP on a UNIX socket; `CONTRACT.md` and the control plane's agent app
describe the same fields from their side.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from agent.limits import Limits, limits_from


class ProtocolError(ValueError):
    """Home or the container's creator sent something that this agent doesn't understand."""


class Phase(StrEnum):
    GENERATING = "generating"  # the model writes the app
    DEPLOYING = "deploying"  # the source is here or on its way, the app starts
    READY = "ready"  # the app answers
    FAILED = "failed"  # this assignment is over; the error says why


class Kind(StrEnum):
    BUNDLE = "bundle"  # run the assignment's bundle
    GENERATE = "generate"  # have the model write an app, on top of the bundle if there is one
    CHANGE = "change"  # have the model change the bundle's app while that app goes on serving


class FailureCode(StrEnum):
    APP_NOT_READY = "app_not_ready"  # never answered, or exited during its start
    APP_CRASHED = "app_crashed"  # kept crashing after it had been ready
    APP_NOT_HEALTHY = "app_not_healthy"  # written and mended, and still in bad health
    BUNDLE_INVALID = "bundle_invalid"  # home or the agent refuses the bundle
    BUNDLE_FETCH_FAILED = "bundle_fetch_failed"  # home didn't hand it out in time
    GENERATION_FAILED = "generation_failed"  # the model gave no usable files
    BUDGET_EXHAUSTED = "budget_exhausted"  # home won't pay for more; the message says what renews
    PROVIDER_AUTH = "provider_auth"  # the gateway's key or our token was refused
    PROVIDER_UNAVAILABLE = "provider_unavailable"  # rate limit, overload, no connection
    REFUSED = "refused"  # the model declined the request


TEMPORARY = frozenset({FailureCode.BUNDLE_FETCH_FAILED, FailureCode.PROVIDER_UNAVAILABLE})


class AssignmentFailed(Exception):
    """Ends an assignment; the runner reports it as phase FAILED."""

    def __init__(self, code: FailureCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    @property
    def permanent(self) -> bool:
        """False if the same assignment may succeed elsewhere or later."""
        return self.code not in TEMPORARY


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Who this sandbox is; the first line of its standard input."""

    sandbox_id: str
    token: str
    slug: str


@dataclass(frozen=True, kw_only=True)
class BundleRef:
    sha256: str
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class Said:
    """One message of the conversation so far, as home keeps it: short, without tool calls."""

    role: str  # "user" or "assistant"
    text: str


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """One job for this sandbox. `id` is opaque and only compared."""

    id: str
    kind: Kind
    session_id: str
    session_token: str
    slug: str
    prompt: str | None
    model: str | None
    max_tokens: int
    bundle: BundleRef | None
    start_timeout_s: float
    message: str | None = None  # kind change: what the user wants now
    conversation: tuple[Said, ...] = ()  # what was said before, oldest first
    expected_output_tokens: int | None = None  # what such an app has cost before; for the bar
    limits: Limits = field(default_factory=Limits)

    @property
    def wish(self) -> str:
        """What the model is to do."""
        return self.message or self.prompt or ""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How an assignment ended that began while another app was serving."""

    failure: AssignmentFailed | None = None  # set: the app that was there before goes on

    def as_json(self) -> dict[str, Any]:
        if self.failure is None:
            return {"ok": True}
        failed = self.failure
        return {
            "ok": False,
            "code": str(failed.code),
            "message": failed.message,
            "permanent": failed.permanent,
        }


@dataclass(frozen=True, kw_only=True)
class Report:
    """One progress report; `seq` grows strictly within an assignment."""

    seq: int
    phase: Phase
    progress: int
    message: str
    logs: tuple[str, ...]
    failure: AssignmentFailed | None
    summary: str | None = None  # READY: what the model says that it did
    outcome: Outcome | None = None  # READY: of an assignment that began beside a serving app

    def as_json(self) -> dict[str, Any]:
        error = None
        if self.failure is not None:
            error = {
                "code": str(self.failure.code),
                "message": self.failure.message,
                "permanent": self.failure.permanent,
            }
        return {
            "seq": self.seq,
            "phase": str(self.phase),
            "progress": self.progress,
            "message": self.message,
            "logs": list(self.logs),
            "error": error,
            "summary": self.summary,
            "change": None if self.outcome is None else self.outcome.as_json(),
        }


def parse_identity(document: object) -> Identity:
    """Raise ProtocolError unless `document` is the identity object."""
    fields = _object(document, "identity")
    return Identity(
        sandbox_id=_text(fields, "sandbox_id"),
        token=_text(fields, "token"),
        slug=_text(fields, "slug").lower(),
    )


def parse_assignment(document: object) -> Assignment:
    """Read the inbox's answer `{"assignment": {...}}`; raise ProtocolError if it isn't one."""
    fields = _object(_object(document, "answer").get("assignment"), "assignment")
    kind = _text(fields, "kind")
    if kind not in set(Kind):
        raise ProtocolError(f"unknown kind of assignment {kind!r}")
    assignment = Assignment(
        id=_text(fields, "id"),
        kind=Kind(kind),
        session_id=_text(fields, "session_id"),
        session_token=_text(fields, "session_token"),
        slug=_text(fields, "slug").lower(),
        prompt=_optional_text(fields, "prompt"),
        model=_optional_text(fields, "model"),
        max_tokens=int(_number(fields, "max_tokens")),
        bundle=_bundle_ref(fields.get("bundle")),
        start_timeout_s=_number(fields, "start_timeout_s"),
        message=_optional_text(fields, "message"),
        conversation=_conversation(fields.get("conversation")),
        expected_output_tokens=_optional_count(fields, "expected_output_tokens"),
        limits=_limits(fields.get("limits")),
    )
    if assignment.kind in (Kind.BUNDLE, Kind.CHANGE) and assignment.bundle is None:
        raise ProtocolError(f"an assignment of kind {kind} names no bundle")
    if assignment.kind is Kind.GENERATE and not assignment.prompt:
        raise ProtocolError("an assignment of kind generate has no prompt")
    if assignment.kind is Kind.CHANGE and not assignment.message:
        raise ProtocolError("an assignment of kind change has no message")
    return assignment


def _bundle_ref(value: object) -> BundleRef | None:
    if value is None:
        return None
    fields = _object(value, "bundle")
    return BundleRef(
        sha256=_text(fields, "sha256").lower(), size_bytes=int(_number(fields, "size_bytes"))
    )


def _conversation(value: object) -> tuple[Said, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise ProtocolError("conversation is not a list")
    return tuple(_said(_object(one, "a message of the conversation")) for one in value)


def _said(fields: dict[str, object]) -> Said:
    role = _text(fields, "role")
    if role not in ("user", "assistant"):
        raise ProtocolError(f"unknown role {role!r} in the conversation")
    return Said(role=role, text=_text(fields, "text"))


def _limits(value: object) -> Limits:
    if value is None:
        return Limits()
    try:
        return limits_from(_object(value, "limits"))
    except ValueError as error:
        raise ProtocolError(str(error)) from error


def _object(value: object, name: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise ProtocolError(f"{name} is not an object")
    return value


def _text(fields: dict[str, object], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not value:
        raise ProtocolError(f"{name} is missing or not a text")
    return value


def _optional_text(fields: dict[str, object], name: str) -> str | None:
    return None if fields.get(name) is None else _text(fields, name)


def _optional_count(fields: dict[str, object], name: str) -> int | None:
    return None if fields.get(name) is None else int(_number(fields, name))


def _number(fields: dict[str, object], name: str) -> float:
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise ProtocolError(f"{name} is missing or not a number")
    return value
