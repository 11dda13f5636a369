"""Gives agents the bundles to start, and keeps the bundles that they upload.

Called by the agent app.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from orchestrator.contract.bundles import PACKED_MAX_BYTES
from orchestrator.contract.manifest import Manifest
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

    `session` is the session as the upload was authorized for it; that may be long ago. `claimed`
    is the SHA-256 that the agent computed. A version that isn't `healthy` is kept for its owner to
    download; no attempt and no recovery starts it.

    Whether a version is wanted is decided from a fresh read, and written under its revision: a
    session that has ended, or an assignment that is over, keeps nothing. Raises errors.TooLarge
    (also storage_quota), errors.InvalidInput (bundle_refused), errors.Conflict if the bytes don't
    match `claimed` or another version was kept (version_kept), errors.Forbidden (not_generating,
    token_refused) if no app is being written, errors.StorageFull (storage_low).
    """
    storage.check_room(deps)
    digest = _check_bytes(data, claimed)
    _decide(deps, session, digest, healthy=healthy)  # before any work on the archive
    manifest = deps.bundles.inspect(data)
    deps.bundles.put(data)
    while True:
        upload = _decide(deps, session, digest, healthy=healthy)
        record = upload.repeated or _new_record(deps, upload, manifest, digest, len(data))
        record = replace(record, healthy=record.healthy or healthy)
        now = deps.clock.now()
        # Later attempts and recoveries start a healthy version, instead of calling the model again.
        bundle = digest if healthy else upload.session.bundle
        owner = replace(upload.session, bundle=bundle, updated_at=now)
        try:
            deps.store.bundles.keep(record, owner, deps.policy.storage)
        except errors.StaleWrite:
            continue
        return record


@dataclass(frozen=True, kw_only=True)
class _Upload:
    """An upload that is wanted, as decided from one read of its session."""

    session: Session
    records: Sequence[BundleRecord]  # the versions so far
    repeated: BundleRecord | None  # the one with these bytes, if there is one


def _check_bytes(data: bytes, claimed: str) -> Sha256:
    if len(data) > PACKED_MAX_BYTES:
        raise errors.TooLarge(
            f"a bundle is at most {PACKED_MAX_BYTES} bytes large", limit_bytes=PACKED_MAX_BYTES
        )
    digest = hashlib.sha256(data).hexdigest()
    if digest != claimed:
        raise errors.Conflict("the bundle arrived damaged: its SHA-256 differs")
    return Sha256(digest)


def _decide(deps: Deps, authorized: Session, digest: Sha256, *, healthy: bool) -> _Upload:
    """Read the session, and check that it wants this upload now."""
    session = deps.store.sessions.get(authorized.id)
    if not access.is_same_assignment(session, authorized):
        raise errors.Forbidden("that upload's assignment is over", code="token_refused")
    if session.state not in IN_PROGRESS:
        raise errors.Forbidden("nothing is being made in this session", code="not_generating")
    records = versions.list_versions(deps, session)
    repeated = next((record for record in records if record.sha256 == digest), None)
    change = _change_of(session)
    if repeated is None or repeated.change != change:
        _check_open(deps, session, records, healthy=healthy)
    return _Upload(session=session, records=records, repeated=repeated)


def _check_open(
    deps: Deps, session: Session, records: Sequence[BundleRecord], *, healthy: bool
) -> None:
    """Check that the assignment is to write an app, and that its version wasn't kept before.

    Each try of an assignment may keep one draft besides.
    """
    change = _change_of(session)
    if change and deps.store.changes.get(session.id, change).restores is not None:
        raise errors.Forbidden("this session starts an earlier version", code="not_generating")
    if not change and (session.template is not None or session.reused):
        raise errors.Forbidden("this session starts an app that exists", code="not_generating")
    kept = [record.healthy for record in records if record.change == change]
    tries = max(1, session.turns.tries if change else session.attempt)
    if True in kept or (not healthy and len(kept) >= tries):
        raise errors.Conflict("a version of this assignment was kept already", code="version_kept")


def _change_of(session: Session) -> int:
    return session.turns.started if session.is_changing else 0


def _new_record(
    deps: Deps, upload: _Upload, manifest: Manifest, digest: Sha256, size_bytes: int
) -> BundleRecord:
    session, change = upload.session, _change_of(upload.session)
    return BundleRecord(
        session_id=session.id,
        version=versions.next_number(session, upload.records),
        sha256=digest,
        size_bytes=size_bytes,
        kind=manifest.kind.value,
        title=manifest.title,
        created_at=deps.clock.now(),
        delete_after=None,
        healthy=False,
        change=change,
        provider=", ".join(deps.store.usage.providers(session.id, change)),
    )
