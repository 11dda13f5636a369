"""What the control plane sends an agent: its identity, then assignments."""

from __future__ import annotations

import binascii
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any

from orchestrator.contract.uploads import UPLOAD_MAX_BYTES
from orchestrator.contract.wire.fields import Fields, ProtocolError

PACKED_WITHIN_MAX_BYTES = 48 * 1024
"""The largest bundle that comes with its assignment: a request less for whoever waits."""


class Kind(StrEnum):
    """What an assignment asks for."""

    BUNDLE = "bundle"  # start the assignment's bundle
    GENERATE = "generate"  # have the model write an app, on top of the bundle if there is one
    CHANGE = "change"  # have the model change the bundle's app while that app goes on serving


class Role(StrEnum):
    """Who wrote a message."""

    USER = "user"
    ASSISTANT = "assistant"


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Who a sandbox is: the first line of its agent's standard input."""

    sandbox_id: str
    token: str
    slug: str
    interpreters: bool = False  # keep a Python and a Node ready while the host has room

    def as_json(self) -> dict[str, Any]:
        return {
            "sandbox_id": self.sandbox_id,
            "token": self.token,
            "slug": self.slug,
            "interpreters": self.interpreters,
        }


@dataclass(frozen=True, kw_only=True)
class BundleRef:
    """A bundle that the agent is to have: it comes with this, or has to be fetched."""

    sha256: str
    size_bytes: int
    packed: bytes | None = None  # as Base64 in JSON

    def as_json(self) -> dict[str, Any]:
        document: dict[str, Any] = {"sha256": self.sha256, "size_bytes": self.size_bytes}
        if self.packed:
            document["packed"] = binascii.b2a_base64(self.packed, newline=False).decode()
        return document


@dataclass(frozen=True, kw_only=True)
class Message:
    """One message of the conversation so far: short, without tool calls."""

    role: Role
    text: str

    def as_json(self) -> dict[str, Any]:
        return {"role": self.role.value, "text": self.text}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one assignment may use up while the model works."""

    turns: int = 60  # answers of the model
    output_tokens: int = 200_000  # over all turns
    seconds: float = 540.0  # from start to finish; below the deadline for generating (600 s)
    repairs: int = 3  # failed checks that go back to the model; one more is the end
    files: int = 500
    file_bytes: int = 1024 * 1024  # of one file that the model writes or reads
    total_bytes: int = 20 * 1024 * 1024  # of all files of the app
    run_seconds: float = 60.0  # of one command; the model may ask for less
    silence_seconds: float = 180.0  # with nothing but pings; home waits less long for a provider

    def as_json(self) -> dict[str, Any]:
        return {limit.name: getattr(self, limit.name) for limit in fields(self)}


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """One job for a sandbox. `id` is opaque: the agent only compares it."""

    id: str
    kind: Kind
    session_id: str
    session_token: str
    slug: str
    bundle: BundleRef | None  # set for the kinds BUNDLE and CHANGE
    max_tokens: int  # of one answer of the model
    start_timeout_s: float
    upload_max_bytes: int = UPLOAD_MAX_BYTES  # of a request to the app
    # All below is about the model's work, and is not sent with the kind BUNDLE.
    prompt: str | None = None  # GENERATE: what the user wants
    model: str | None = None  # None: the agent's default
    expected_output_tokens: int | None = None  # what such an app usually takes, for the progress
    limits: Limits = field(default_factory=Limits)
    message: str | None = None  # CHANGE: what the user wants now
    conversation: tuple[Message, ...] = ()  # CHANGE: what was said before, oldest first

    def as_json(self) -> dict[str, Any]:
        document: dict[str, Any] = {
            "id": self.id,
            "kind": self.kind.value,
            "session_id": self.session_id,
            "session_token": self.session_token,
            "slug": self.slug,
            "bundle": None if self.bundle is None else self.bundle.as_json(),
            "max_tokens": self.max_tokens,
            "start_timeout_s": self.start_timeout_s,
            "upload_max_bytes": self.upload_max_bytes,
            "prompt": self.prompt,
            "model": self.model,
        }
        if self.kind is not Kind.BUNDLE:
            document["expected_output_tokens"] = self.expected_output_tokens
            document["limits"] = self.limits.as_json()
        if self.kind is Kind.CHANGE:
            document["message"] = self.message
            document["conversation"] = [message.as_json() for message in self.conversation]
        return document


def parse_identity(document: object) -> Identity:
    """Read a decoded identity. Raises ProtocolError."""
    given = Fields(document, "identity")
    return Identity(
        sandbox_id=given.text("sandbox_id"),
        token=given.text("token"),
        slug=given.text("slug").lower(),
        interpreters=given.flag("interpreters", default=False),
    )


def parse_inbox(document: object) -> Assignment:
    """Read the inbox's decoded answer, `{"assignment": {...}}`. Raises ProtocolError."""
    return parse_assignment(Fields(document, "answer").value("assignment"))


def parse_assignment(document: object) -> Assignment:
    """Read a decoded assignment. Raises ProtocolError."""
    given = Fields(document, "assignment")
    bundle = given.child("bundle")
    assignment = Assignment(
        id=given.text("id"),
        kind=given.choice("kind", Kind),
        session_id=given.text("session_id"),
        session_token=given.text("session_token"),
        slug=given.text("slug").lower(),
        bundle=None if bundle is None else _bundle_ref(bundle),
        max_tokens=given.whole("max_tokens"),
        start_timeout_s=given.number("start_timeout_s"),
        upload_max_bytes=_optional_whole(given, "upload_max_bytes") or UPLOAD_MAX_BYTES,
        prompt=_optional_text(given, "prompt"),
        model=_optional_text(given, "model"),
        expected_output_tokens=_optional_whole(given, "expected_output_tokens"),
        limits=_limits(given.child("limits")),
        message=_optional_text(given, "message"),
        conversation=tuple(_message(each) for each in given.children("conversation")),
    )
    missing = _missing(assignment)
    if missing:
        raise ProtocolError(missing, f"is missing from an assignment of kind {assignment.kind}")
    return assignment


def parse_limits(document: object) -> Limits:
    """Read decoded limits; those that are missing are the defaults. Raises ProtocolError."""
    return _limits(Fields(document, "limits", prefix="limits."))


def parse_message(document: object) -> Message:
    """Read a decoded message of a conversation. Raises ProtocolError."""
    return _message(Fields(document, "message"))


def _missing(assignment: Assignment) -> str:
    """The field that this kind of assignment needs and that this one lacks."""
    kind = assignment.kind
    if kind in (Kind.BUNDLE, Kind.CHANGE) and assignment.bundle is None:
        return "bundle"
    if kind is Kind.GENERATE and not assignment.prompt:
        return "prompt"
    return "message" if kind is Kind.CHANGE and not assignment.message else ""


def _bundle_ref(given: Fields) -> BundleRef:
    return BundleRef(
        sha256=given.text("sha256").lower(),
        size_bytes=given.whole("size_bytes"),
        packed=_packed(given) if given.has("packed") else None,
    )


def _packed(given: Fields) -> bytes:
    try:
        return binascii.a2b_base64(given.text("packed").encode(), strict_mode=True)
    except ValueError as error:
        raise given.wrong("packed", "is no Base64") from error


def _message(given: Fields) -> Message:
    return Message(role=given.choice("role", Role), text=given.text("text"))


def _limits(given: Fields | None) -> Limits:
    chosen: dict[str, float] = {}
    for limit in fields(Limits):
        if given is None or not given.has(limit.name):
            continue
        if isinstance(limit.default, float):
            chosen[limit.name] = given.number(limit.name)
        else:
            chosen[limit.name] = given.whole(limit.name)
        if chosen[limit.name] <= 0:
            raise ProtocolError(f"limits.{limit.name}", "must be positive")
    return Limits(**chosen)  # type: ignore[arg-type]  # each value has the type of its default


def _optional_text(given: Fields, name: str) -> str | None:
    return given.text(name) if given.has(name) else None


def _optional_whole(given: Fields, name: str) -> int | None:
    return given.whole(name) if given.has(name) else None
