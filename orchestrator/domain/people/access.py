"""Who makes a request and how much they may have: principals, keys and limits."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from orchestrator.domain.ids import KeyId, UserId
from orchestrator.domain.sessions.session import Tier

HOUR_S = 3600
TTL_MIN_S = 60
PROMPT_MAX_BYTES = 16 * 1024


class Role(enum.StrEnum):
    """What a credential may do."""

    USER = "user"  # see and change its own sessions
    OPERATOR = "operator"  # see and change all sessions and the pool


@dataclass(frozen=True, kw_only=True)
class Principal:
    """Who makes a request, once authenticated."""

    user_id: UserId
    tier: Tier
    role: Role = Role.USER


@dataclass(frozen=True, kw_only=True)
class ApiKey:
    """One row of the api_keys table. The key itself is shown once and never stored."""

    id: KeyId
    name: str
    user_id: UserId
    tier: Tier
    role: Role
    key_hash: str  # SHA-256 in hex: enough for keys of 160 random bits
    created_at: datetime
    revoked_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one tier may have."""

    ttl_max_s: int
    sessions_max: int  # per user; ended ones don't count
    starts_per_minute: int  # of one user; each takes a sandbox that others wait for
    changes_per_minute: int  # of one user's apps together; each is stored and carried out
    polls_max: int  # requests of one user that wait for a change, at a time


LIMITS: Mapping[Tier, Limits] = {
    Tier.FREE: Limits(
        ttl_max_s=24 * HOUR_S,
        sessions_max=5,
        starts_per_minute=30,
        changes_per_minute=30,
        polls_max=20,
    ),
    Tier.PRO: Limits(
        ttl_max_s=72 * HOUR_S,
        sessions_max=50,
        starts_per_minute=120,
        changes_per_minute=120,
        polls_max=100,
    ),
    Tier.OPERATOR: Limits(
        ttl_max_s=7 * 24 * HOUR_S,
        sessions_max=10_000,
        starts_per_minute=10_000,
        changes_per_minute=10_000,
        polls_max=1000,
    ),
}
TTL_MAX_S = max(limits.ttl_max_s for limits in LIMITS.values())
