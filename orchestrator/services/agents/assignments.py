"""Builds the assignments that agents get. Called by inbox.py and bundles.py of this package."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from orchestrator import ports
from orchestrator.contract import wire
from orchestrator.domain.ids import Sha256
from orchestrator.domain.people.tokens import SessionGrant
from orchestrator.domain.sessions import conversations
from orchestrator.domain.sessions.changes import Change
from orchestrator.domain.sessions.session import Session
from orchestrator.services.deps import Deps
from orchestrator.services.sessions import generations, versions

_SILENCE_SLACK_S = 60.0  # the gateway gives a silent provider up first, and says why
_MODEL_SHARE = 0.9  # of the time for a generation; the rest is for starting and keeping the app


def assignment_id(grant: SessionGrant) -> str:
    """A name for an assignment. Each assignment of a sandbox has another one."""
    change = f"/{grant.change}" if grant.change else ""
    return f"{grant.session_id}/{grant.attempt}{change}"


def build_assignment(deps: Deps, session: Session, grant: SessionGrant) -> wire.Assignment:
    """The assignment that a grant is for. Raises errors.NotFound if its bundle's bytes are gone."""
    change = deps.store.changes.get(session.id, grant.change) if grant.change else None
    digest = _digest(deps, session, change)
    assignment = wire.Assignment(
        id=assignment_id(grant),
        kind=_kind(session, change),
        session_id=session.id,
        session_token=deps.tokens.for_session(grant),
        slug=session.slug or "",  # the claim of the sandbox has set it
        bundle=None if digest is None else _reference(deps, digest),
        max_tokens=deps.policy.max_tokens,
        start_timeout_s=deps.policy.start_timeout_s,
        upload_max_bytes=deps.policy.upload_max_bytes,
    )
    if assignment.kind is wire.Kind.BUNDLE:
        return assignment
    return _with_request(deps, session, change, assignment)


def bundle_digest(deps: Deps, session: Session, change: int) -> Sha256 | None:
    """The digest of the bundle that an assignment names; None if it names none."""
    return _digest(deps, session, deps.store.changes.get(session.id, change) if change else None)


def load_bundle(catalog: ports.Catalog, bundles: ports.Bundles, digest: Sha256) -> bytes:
    """A bundle's bytes, from the catalog or from what was kept. Raises errors.NotFound."""
    return catalog.data(digest) or bundles.get(digest)


def _digest(deps: Deps, session: Session, change: Change | None) -> Sha256 | None:
    if change is None or change.restores is None:
        return session.bundle
    return versions.get_version(deps, session, change.restores).sha256


def _kind(session: Session, change: Change | None) -> wire.Kind:
    if change is None:
        return wire.Kind.GENERATE if session.bundle is None else wire.Kind.BUNDLE
    return wire.Kind.CHANGE if change.restores is None else wire.Kind.BUNDLE


def _reference(deps: Deps, digest: Sha256) -> wire.BundleRef:
    template = deps.catalog.data(digest)
    if template is None:
        return wire.BundleRef(sha256=digest, size_bytes=deps.bundles.size(digest))
    within = template if len(template) <= wire.PACKED_WITHIN_MAX_BYTES else None
    return wire.BundleRef(sha256=digest, size_bytes=len(template), packed=within)


def _with_request(
    deps: Deps, session: Session, change: Change | None, assignment: wire.Assignment
) -> wire.Assignment:
    """Add what the model has to know."""
    expected = generations.expected_output_tokens(deps, change=change is not None)
    seconds = round(deps.policy.deadlines.generating_s * _MODEL_SHARE)
    assignment = replace(
        assignment,
        model=deps.policy.model,
        expected_output_tokens=expected,
        limits=wire.Limits(
            seconds=seconds, silence_seconds=deps.policy.provider_silence_s + _SILENCE_SLACK_S
        ),
    )
    if change is None:
        return replace(assignment, prompt=session.prompt)
    return replace(
        assignment,
        message=change.text,
        conversation=tuple(_conversation(deps, session, change)),
    )


def _conversation(deps: Deps, session: Session, change: Change) -> Sequence[wire.Message]:
    """The messages before this change."""
    versions_so_far = versions.list_versions(deps, session)
    first = next((version for version in versions_so_far if version.version == 1), None)
    earlier = deps.store.changes.list(
        session.id, before=change.number, limit=conversations.CHANGES_MAX
    )
    prompt = session.prompt or f"Start the template {session.template}."
    summary = first.summary if first is not None else ""
    return conversations.conversation_of(prompt, summary, earlier)
