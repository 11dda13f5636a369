"""Who makes a request and how much they may have: principals, keys, limits and queues."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from orchestrator.domain.ids import KeyId, UserId
from orchestrator.domain.sessions.session import Session, SessionState, Tier, Wanted

HOUR_S = 3600
TTL_MIN_S = 60
TTL_DEFAULT_S = 24 * HOUR_S
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


LIMITS: Mapping[Tier, Limits] = {
    Tier.FREE: Limits(ttl_max_s=24 * HOUR_S, sessions_max=5),
    Tier.PRO: Limits(ttl_max_s=72 * HOUR_S, sessions_max=50),
    Tier.OPERATOR: Limits(ttl_max_s=7 * 24 * HOUR_S, sessions_max=10_000),
}


class Queue(enum.StrEnum):
    """RQ queues, in the order in which workers empty them."""

    CRITICAL = "critical"  # sessions under way or to be destroyed: they hold or free slots
    HIGH = "high"  # new sessions of paying users and operators
    NORMAL = "normal"  # new sessions of visitors


def queue_for(session: Session) -> Queue:
    """The queue for nudges of this session: first what has begun, then by tier."""
    if session.wanted is Wanted.GONE or session.state is not SessionState.QUEUED:
        return Queue.CRITICAL
    return Queue.NORMAL if session.tier is Tier.FREE else Queue.HIGH


RANK: Mapping[Tier, int] = {Tier.OPERATOR: 0, Tier.PRO: 1, Tier.FREE: 2}
