"""API keys, and who did what."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from typing_extensions import TypedDict

from orchestrator.domain.people.access import Role
from orchestrator.domain.sessions.session import Tier
from orchestrator.entrypoints.api.answers.base import Next, Time


class Key(TypedDict):
    """An API key, without its secret."""

    key_id: str
    name: str
    user_id: str
    tier: Tier
    role: Role
    created_at: Time
    revoked_at: Time | None


class CreatedKey(Key):
    """A new key."""

    key: Annotated[str, Field(description="The secret. It is never shown again.")]


class Keys(TypedDict):
    """All keys."""

    keys: list[Key]


class AuditEntry(TypedDict):
    """Something that somebody did."""

    at: Time
    actor: str
    action: str
    subject: str
    detail: str


class AuditPage(TypedDict):
    """What was done, newest first."""

    entries: list[AuditEntry]
    next: Next
