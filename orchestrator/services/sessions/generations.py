"""Reuses the app of an equal prompt that was generated within the last hour.

Called when a session is created, and when its first version runs.
"""

from __future__ import annotations

from datetime import timedelta
from statistics import median

from orchestrator.domain import errors
from orchestrator.domain.sessions.bundles import CACHE, BundleRecord
from orchestrator.domain.sessions.generations import Generation, key_of
from orchestrator.domain.sessions.session import Session
from orchestrator.services.deps import Deps

_HISTORY = timedelta(days=7)
_HISTORY_MAX = 50  # generations that an estimate is based on
_HISTORY_MIN = 5  # with fewer there is no estimate


def find(deps: Deps, session: Session) -> Generation | None:
    """The earlier generation of an equal prompt, if its bundle still exists."""
    generation = deps.store.generations.find(_key(deps, session), deps.clock.now())
    if generation is None:
        return None
    try:
        deps.bundles.size(generation.bundle)
    except errors.NotFound:
        return None
    return generation


def adopt(deps: Deps, session: Session, generation: Generation) -> None:
    """Make the bundle of an earlier generation the first version of a new session."""
    data = deps.bundles.get(generation.bundle)
    manifest = deps.bundles.inspect(data)
    deps.store.bundles.add(
        BundleRecord(
            session_id=session.id,
            version=1,
            sha256=generation.bundle,
            size_bytes=len(data),
            kind=manifest.kind.value,
            title=manifest.title,
            created_at=deps.clock.now(),
            delete_after=None,
            provider=CACHE,
            summary=generation.summary,
        )
    )


def remember(deps: Deps, session: Session, version: BundleRecord) -> None:
    """Remember which app a prompt led to. Only for an app that has been seen to run."""
    deps.store.generations.put(
        Generation(
            key=_key(deps, session),
            bundle=version.sha256,
            session_id=session.id,
            summary=version.summary,
            created_at=deps.clock.now(),
        )
    )


def expected_output_tokens(deps: Deps, *, change: bool) -> int | None:
    """The median output of the model for a change, or for a first version.

    None if there were too few calls in the last days.
    """
    since = deps.clock.now() - _HISTORY
    outputs = deps.store.usage.output_tokens(changes=change, since=since, limit=_HISTORY_MAX)
    return round(median(outputs)) if len(outputs) >= _HISTORY_MIN else None


def _key(deps: Deps, session: Session) -> str:
    """The runtime image stands for the contract: it decides what a sandbox offers to an app."""
    return key_of(
        session.prompt,
        model=deps.policy.model,
        contract=deps.image(),
        tier=session.tier,
        user_id=None if deps.policy.share_between_users else session.user_id,
    )
