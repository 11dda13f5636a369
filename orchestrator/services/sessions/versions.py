"""The versions of a session's app. Called by whoever shows, keeps or starts one."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.domain import errors
from orchestrator.domain.sessions.bundles import BundleRecord
from orchestrator.domain.sessions.session import Session
from orchestrator.services.deps import Deps


def of_session(deps: Deps, found: Session) -> Sequence[BundleRecord]:
    """All of them, oldest first. A template is the first version of what was made from it, though
    the catalog has it and no record does."""
    kept = deps.store.bundles.list(found.id)
    if found.template is None or any(one.version == 1 for one in kept):
        return kept
    template = deps.catalog.get(found.template)
    if template is None:
        return kept
    first = BundleRecord(
        session_id=found.id,
        version=1,
        sha256=template.digest,
        size_bytes=template.size_bytes,
        kind=template.kind,
        title=template.title,
        created_at=found.created_at,
        delete_after=None,
    )
    return [first, *kept]


def numbered(deps: Deps, found: Session, number: int) -> BundleRecord:
    """One of them. Raises errors.NotFound (version_unknown)."""
    for one in of_session(deps, found):
        if one.version == number:
            return one
    raise errors.NotFound(f"this session has no version {number}", code="version_unknown")


def running(deps: Deps, found: Session) -> BundleRecord | None:
    """The one that runs, or would be started again; None while there is none."""
    for one in reversed(of_session(deps, found)):
        if one.healthy and one.sha256 == found.bundle:
            return one
    return None


def next_number(found: Session, known: Sequence[BundleRecord]) -> int:
    """What the next one is to be called. A session's first is 1, a template's first change 2."""
    return max((one.version for one in known), default=0 if found.template is None else 1) + 1
