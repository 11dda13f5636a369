"""The bundles that a session keeps: one for each version of its app.

What makes a bundle acceptable is said in orchestrator.contract, which the agent shares.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from orchestrator.domain.ids import SessionId, Sha256

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
