"""Keeps the folder of bundles and the table of versions alike, and within their limits.

The table is written in transactions, the folder is not. So nobody deletes bytes together with
their record: the sweep compares both, and deletes what no record has named for an hour. Called by
the prune loop, and before an app is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from orchestrator.domain import errors
from orchestrator.domain.ids import SessionId, Sha256, UserId
from orchestrator.domain.sessions.bundles import find_shortage
from orchestrator.services.deps import Deps

# Bytes are stored before the record that names them. No request takes nearly as long.
UNNAMED_FOR = timedelta(hours=1)
_BATCH = 500
_FULL_RETRY_S = 3600.0  # versions are deleted days after their app's end


@dataclass(frozen=True, kw_only=True)
class Swept:
    """What one sweep found."""

    deleted: int  # bundles that nothing named
    missing: Sequence[Sha256]  # digests that a record names, but whose bytes are gone


def sweep_bundles(deps: Deps) -> Swept:
    """Delete bytes that no record names, and find records whose bytes are gone."""
    return Swept(deleted=_delete_unnamed(deps), missing=_find_missing(deps))


def check_can_store(deps: Deps, session_id: SessionId, user_id: UserId) -> None:
    """Check that another version could be stored, before somebody pays for writing it.

    Raises errors.LimitReached (storage_quota).
    """
    stored = deps.store.bundles.stored(session_id, user_id)
    shortage = find_shortage(deps.policy.storage, stored, size_bytes=1)
    if shortage is not None:
        raise errors.LimitReached(
            shortage.message,
            code="storage_quota",
            retry_after_s=_FULL_RETRY_S,
            scope=shortage.scope,
            limit=shortage.limit,
        )


def _delete_unnamed(deps: Deps) -> int:
    before = deps.clock.now() - UNNAMED_FOR
    templates = {template.digest for template in deps.catalog.list()}
    stale = [digest for digest in deps.bundles.stale(before) if digest not in templates]
    batches = (stale[start : start + _BATCH] for start in range(0, len(stale), _BATCH))
    return sum(
        deps.bundles.discard(digest, before)
        for batch in batches
        for digest in deps.store.bundles.unnamed(batch)
    )


def _find_missing(deps: Deps) -> Sequence[Sha256]:
    missing: list[Sha256] = []
    after = ""
    while digests := deps.store.bundles.digests(after, _BATCH):
        missing += (digest for digest in digests if not _exists(deps, digest))
        after = digests[-1]
    return missing


def _exists(deps: Deps, digest: Sha256) -> bool:
    try:
        deps.bundles.size(digest)
    except errors.NotFound:
        return deps.catalog.data(digest) is not None
    return True
