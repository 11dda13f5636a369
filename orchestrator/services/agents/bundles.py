"""Gives agents the bundles to start, and keeps the bundles that they upload.

Called by the agent app.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

from orchestrator.contract.bundles import PACKED_MAX_BYTES
from orchestrator.domain import errors
from orchestrator.domain.ids import SandboxId, Sha256
from orchestrator.domain.sessions.bundles import BundleRecord
from orchestrator.domain.sessions.session import IN_PROGRESS, Session
from orchestrator.services import storage
from orchestrator.services.agents import access, assignments
from orchestrator.services.deps import Deps
from orchestrator.services.sessions import versions


def bundle_for(deps: Deps, session: Session, sender: SandboxId) -> tuple[Sha256, bytes]:
    """The digest and the bytes of the bundle that a sandbox's assignment names.

    Raises errors.NotFound if it names none, or if the bytes are gone.
    """
    digest = assignments.bundle_digest(deps, session, access.change_of(session, sender))
    if digest is None:
        raise errors.NotFound("this session has no bundle: its app is to be generated")
    return digest, assignments.load_bundle(deps.catalog, deps.bundles, digest)


def keep_bundle(
    deps: Deps, session: Session, data: bytes, claimed: str, *, healthy: bool = True
) -> BundleRecord:
    """Keep an uploaded bundle as the session's next version. Safe to repeat.

    `claimed` is the SHA-256 that the agent computed. A version that isn't `healthy` is kept for
    its owner to download; no attempt and no recovery starts it. Raises errors.TooLarge,
    errors.InvalidInput (bundle_refused), errors.Conflict if the bytes don't match `claimed`,
    errors.Forbidden (not_generating) if no app is being written or started,
    errors.StorageFull (storage_low).
    """
    if len(data) > PACKED_MAX_BYTES:
        raise errors.TooLarge(
            f"a bundle is at most {PACKED_MAX_BYTES} bytes large", limit_bytes=PACKED_MAX_BYTES
        )
    if hashlib.sha256(data).hexdigest() != claimed:
        raise errors.Conflict("the bundle arrived damaged: its SHA-256 differs")
    manifest = deps.bundles.inspect(data)
    if session.state not in IN_PROGRESS:
        raise errors.Forbidden("nothing is being made in this session", code="not_generating")
    storage.check_room(deps)
    digest = deps.bundles.put(data)
    existing = versions.list_versions(deps, session)
    change = session.turns.started if session.is_changing else 0
    record = BundleRecord(
        session_id=session.id,
        version=versions.next_number(session, existing),
        sha256=digest,
        size_bytes=len(data),
        kind=manifest.kind.value,
        title=manifest.title,
        created_at=deps.clock.now(),
        delete_after=None,
        healthy=healthy,
        change=change,
        provider=", ".join(deps.store.usage.providers(session.id, change)),
    )
    repeated = next((version for version in existing if version.sha256 == digest), None)
    if repeated is None:
        deps.store.bundles.add(record)
    elif healthy and not repeated.healthy:
        deps.store.bundles.update(replace(repeated, healthy=True))
    if healthy:
        _set_bundle(
            deps, session, digest
        )  # also after a repeat: the first upload may have died before this line
    return repeated or record


def _set_bundle(deps: Deps, session: Session, digest: Sha256) -> None:
    """Let later attempts and recoveries start this bundle, instead of calling the model again."""
    while True:
        try:
            deps.store.sessions.save(replace(session, bundle=digest, updated_at=deps.clock.now()))
        except errors.StaleWrite:
            session = deps.store.sessions.get(session.id)
            continue
        return
