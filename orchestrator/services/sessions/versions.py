"""Looks up the versions of a session's app. Called by the API, and by other services."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.domain import errors
from orchestrator.domain.sessions.bundles import BundleRecord
from orchestrator.domain.sessions.session import Session
from orchestrator.services.deps import Deps


def list_versions(deps: Deps, session: Session) -> Sequence[BundleRecord]:
    """All versions of a session, oldest first.

    A session that began with a template has it as version 1. The store has no record of that
    version, so it is made from the catalog.
    """
    records = deps.store.bundles.list(session.id)
    if session.template is None or any(record.version == 1 for record in records):
        return records
    template = deps.catalog.get(session.template)
    if template is None:
        return records
    first = BundleRecord(
        session_id=session.id,
        version=1,
        sha256=template.digest,
        size_bytes=template.size_bytes,
        kind=template.kind,
        title=template.title,
        created_at=session.created_at,
        delete_after=None,
    )
    return [first, *records]


def get_version(deps: Deps, session: Session, number: int) -> BundleRecord:
    """The version with this number. Raises errors.NotFound (version_unknown)."""
    for record in list_versions(deps, session):
        if record.version == number:
            return record
    raise errors.NotFound(f"this session has no version {number}", code="version_unknown")


def find_running(deps: Deps, session: Session) -> BundleRecord | None:
    """The version that runs, or that a restart would start; None if the session has none yet."""
    for record in reversed(list_versions(deps, session)):
        if record.healthy and record.sha256 == session.bundle:
            return record
    return None


def next_number(session: Session, records: Sequence[BundleRecord]) -> int:
    """The number of the next version. A template is version 1, so its first change is version 2."""
    newest = 0 if session.template is None else 1
    return max((record.version for record in records), default=newest) + 1
