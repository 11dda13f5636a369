"""Values that callers hand to the store. Its ports name them in their signatures."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from orchestrator.domain.ids import HostId, SandboxId, SessionId, Slug
from orchestrator.domain.pool.host import Wish


@dataclass(frozen=True, kw_only=True)
class Idempotency:
    """A client's Idempotency-Key, and the request that it was first used for."""

    key: str
    fingerprint: str  # SHA-256 of the request; the same key with another one is a conflict


@dataclass(frozen=True, kw_only=True)
class NewSandbox:
    """What the caller decides about a new sandbox. The store chooses host, port and times."""

    id: SandboxId
    session_id: SessionId | None
    slug: Slug
    image: str  # the current one; a session's sandbox may get the older one that its host has
    wish: Wish = field(default_factory=Wish)
    avoid: tuple[HostId, ...] = ()  # hosts that must not be tried
    raised: bool = False  # it gets the CPU limit of a start, if its host is known to lower it later


@dataclass(frozen=True, kw_only=True)
class SessionPosition:
    """The place of one session in the list. The next page starts after it."""

    ended: bool
    created_at: datetime
    session_id: SessionId
