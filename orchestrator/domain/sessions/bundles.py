"""The bundles that a session keeps: one for each version of its app, and how much may be kept.

What makes a bundle acceptable is said in orchestrator.contract, which the agent shares.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from orchestrator.domain.ids import SessionId, Sha256

_MIB = 1024**2
CACHE = "cache"  # provider of a version that an earlier session made


@dataclass(frozen=True, kw_only=True)
class BundleRecord:
    """One row of the bundles table: a version of a session. The bytes lie under their SHA-256."""

    session_id: SessionId
    version: int
    sha256: Sha256
    size_bytes: int
    kind: str  # static, python or node
    title: str
    created_at: datetime
    delete_after: datetime | None  # None while its session lives
    healthy: bool = True  # False: it never passed its check, and is kept for its owner alone
    change: int = 0  # number of the change that made it; 0: it is the first version
    provider: str = ""  # who wrote it: names of providers, CACHE, or "" for a template
    summary: str = ""  # what the model says that it did


@dataclass(frozen=True, kw_only=True)
class StorageLimits:
    """How much may be stored. Equal bytes count once."""

    versions: int = 100  # of one session
    drafts: int = 3  # of one session: versions that never passed their check; the oldest goes
    session_bytes: int = 500 * _MIB
    # All sessions of one user, ended ones too until their bundles are deleted.
    user_bytes: int = 2048 * _MIB
    total_bytes: int = 20 * 1024 * _MIB  # all users


@dataclass(frozen=True, kw_only=True)
class Stored:
    """How much is stored."""

    versions: int = 0
    session_bytes: int = 0
    user_bytes: int = 0
    total_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class Shortage:
    """Which limit leaves no room for another version, and what to do about it."""

    scope: str  # session, user or installation
    limit: int  # bytes or versions
    message: str


def find_shortage(limits: StorageLimits, stored: Stored, size_bytes: int) -> Shortage | None:
    """The limit that one more version of that size would exceed. None: there is room."""
    if stored.versions >= limits.versions:
        message = f"this app has {stored.versions} versions, the most: start a new app to go on"
        return Shortage(scope="session", limit=limits.versions, message=message)
    uses = (
        ("session", stored.session_bytes, limits.session_bytes, "start a new app to go on"),
        ("user", stored.user_bytes, limits.user_bytes, "end apps and wait until theirs are gone"),
        ("installation", stored.total_bytes, limits.total_bytes, "ask its operator for more"),
    )
    for scope, used_bytes, limit_bytes, advice in uses:
        if used_bytes + size_bytes > limit_bytes:
            message = (
                f"the versions of one {scope} take at most {limit_bytes // _MIB} MiB,"
                f" and {used_bytes // _MIB} MiB are taken: {advice}"
            )
            return Shortage(scope=scope, limit=limit_bytes, message=message)
    return None
