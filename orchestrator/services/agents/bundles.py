"""The bundles that sandboxes fetch, and those that they hand in. Called by the agent app."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from orchestrator.domain import errors
from orchestrator.domain.ids import SandboxId, Sha256
from orchestrator.domain.sessions.bundles import PACKED_MAX_BYTES, BundleRecord
from orchestrator.domain.sessions.session import IN_PROGRESS, Session
from orchestrator.services.agents import access, assignments
from orchestrator.services.deps import Deps
from orchestrator.services.sessions import versions


def bundle_for(deps: Deps, found: Session, sender: SandboxId) -> tuple[Sha256, bytes]:
    """The bytes of what the assignment of a sandbox names. Raises errors.NotFound when it names
    none."""
    digest = assignments.bundle_of(deps, found, access.change_of(found, sender))
    if digest is None:
        raise errors.NotFound("this session has no bundle: its app is to be generated")
    return digest, assignments.load_bundle(deps.catalog, deps.bundles, digest)


def keep_bundle(
    deps: Deps, found: Session, data: bytes, claimed: str, *, healthy: bool = True
) -> BundleRecord:
    """Keep what a sandbox runs as the session's next version. What never was `healthy` is kept
    for its owner alone: no attempt and no recovery starts it.

    Raises errors.TooLarge, errors.InvalidInput (bundle_refused), errors.Conflict when the bytes
    aren't those that the agent meant to send, errors.Forbidden (not_generating) when nothing is
    being made.
    """
    if len(data) > PACKED_MAX_BYTES:
        raise errors.TooLarge(
            f"a bundle has at most {PACKED_MAX_BYTES} bytes", limit_bytes=PACKED_MAX_BYTES
        )
    if hashlib.sha256(data).hexdigest() != claimed:
        raise errors.Conflict("the bundle arrived damaged: its SHA-256 differs")
    manifest = deps.bundles.inspect(data)
    if found.state not in IN_PROGRESS:
        raise errors.Forbidden("nothing is being made in this session", code="not_generating")
    digest = deps.bundles.put(data)
    known = versions.of_session(deps, found)
    change = found.turns.given if found.changing else 0
    record = BundleRecord(
        session_id=found.id,
        version=versions.next_number(found, known),
        sha256=digest,
        size_bytes=len(data),
        kind=manifest.kind,
        title=manifest.title,
        created_at=deps.clock.now(),
        delete_after=None,
        healthy=healthy,
        change=change,
        provider=", ".join(deps.store.usage.providers(found.id, change)),
    )
    repeated = next((one for one in known if one.sha256 == digest), None)
    if repeated is None:
        deps.store.bundles.add(record)
    elif healthy and not repeated.healthy:
        deps.store.bundles.update(replace(repeated, healthy=True))
    if healthy:
        _point_at(deps, found, digest)  # also if the first time ended before this
    return repeated or record


def _point_at(deps: Deps, found: Session, digest: Sha256) -> None:
    """From now on another attempt, or recovery, starts this bundle and calls nobody."""
    while True:
        try:
            deps.store.sessions.save(replace(found, bundle=digest, updated_at=deps.clock.now()))
        except errors.StaleWrite:
            found = deps.store.sessions.get(found.id)
            continue
        return
