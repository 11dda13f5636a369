"""What an agent is told to do, as JSON; runtime-image/CONTRACT.md has it from the agent's side.
Called by services/agents/reports.py.
"""

from __future__ import annotations

from typing import Any

from orchestrator import ports
from orchestrator.domain.ids import Sha256
from orchestrator.domain.people.tokens import SessionGrant
from orchestrator.domain.sessions import conversations
from orchestrator.domain.sessions.changes import Change
from orchestrator.domain.sessions.session import Session
from orchestrator.services.deps import Deps
from orchestrator.services.sessions import generations, versions

_MODEL_SHARE = 0.9  # of the time for a generation; the rest is for starting and keeping the app


def id_of(grant: SessionGrant) -> str:
    """Another one for each assignment that a sandbox gets."""
    change = f"/{grant.change}" if grant.change else ""
    return f"{grant.session_id}/{grant.attempt}{change}"


def of(deps: Deps, found: Session, grant: SessionGrant) -> dict[str, Any]:
    """The assignment that a grant is for. Raises errors.NotFound for bytes that are gone."""
    change = deps.store.changes.get(found.id, grant.change) if grant.change else None
    digest = _digest(deps, found, change)
    writes = found.bundle is None if change is None else change.restores is None
    return {
        "id": id_of(grant),
        "kind": _kind(found, change),
        "session_id": found.id,
        "session_token": deps.tokens.for_session(grant),
        "slug": found.slug,
        "bundle": None if digest is None else _reference(deps, digest),
        "max_tokens": deps.policy.max_tokens,
        "start_timeout_s": deps.policy.start_timeout_s,
        "prompt": None,
        "model": None,
        **(_writing(deps, found, change) if writes else {}),
    }


def bundle_of(deps: Deps, found: Session, change: int) -> Sha256 | None:
    """The bundle that an assignment names."""
    return _digest(deps, found, deps.store.changes.get(found.id, change) if change else None)


def load_bundle(catalog: ports.Catalog, bundles: ports.Bundles, digest: Sha256) -> bytes:
    """A bundle's bytes, from the catalog or from what was kept. Raises errors.NotFound."""
    return catalog.data(digest) or bundles.get(digest)


def _digest(deps: Deps, found: Session, change: Change | None) -> Sha256 | None:
    if change is None or change.restores is None:
        return found.bundle
    return versions.numbered(deps, found, change.restores).sha256


def _kind(found: Session, change: Change | None) -> str:
    if change is None:
        return "generate" if found.bundle is None else "bundle"
    return "change" if change.restores is None else "bundle"


def _reference(deps: Deps, digest: Sha256) -> dict[str, Any]:
    template = deps.catalog.data(digest)
    size = len(template) if template is not None else deps.bundles.size(digest)
    return {"sha256": digest, "size_bytes": size}


def _writing(deps: Deps, found: Session, change: Change | None) -> dict[str, Any]:
    """What the model has to know."""
    expected = generations.expected_output_tokens(deps, change=change is not None)
    fields: dict[str, Any] = {
        "model": deps.policy.model,
        "expected_output_tokens": expected,
        "limits": {"seconds": round(deps.policy.deadlines.generating_s * _MODEL_SHARE)},
    }
    if change is None:
        return {**fields, "prompt": found.prompt}
    said = _said(deps, found, change)
    return {
        **fields,
        "message": change.text,
        "conversation": [{"role": one.role.value, "text": one.text} for one in said],
    }


def _said(deps: Deps, found: Session, change: Change) -> list[conversations.Said]:
    first = next((one for one in versions.of_session(deps, found) if one.version == 1), None)
    earlier = [one for one in deps.store.changes.list(found.id) if one.number < change.number]
    asked = found.prompt or f"Start the template {found.template}."
    return list(conversations.so_far(asked, first.summary if first is not None else "", earlier))
