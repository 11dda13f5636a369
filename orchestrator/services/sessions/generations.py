"""Earlier generations, started again where the same is asked for within the hour."""

from __future__ import annotations

from datetime import timedelta
from statistics import median

from orchestrator.domain import errors
from orchestrator.domain.sessions import generations
from orchestrator.domain.sessions.bundles import CACHE, BundleRecord
from orchestrator.domain.sessions.generations import Generation
from orchestrator.domain.sessions.session import Session
from orchestrator.services.deps import Deps

_HISTORY = timedelta(days=7)
_HISTORY_MAX = 50  # generations that the next one's length is estimated from
_HISTORY_MIN = 5  # fewer say too little


def find(deps: Deps, wanted: Session) -> Generation | None:
    """What an equal prompt came to, if its bundle is still there."""
    known = deps.store.generations.find(_key(deps, wanted), deps.clock.now())
    if known is None:
        return None
    try:
        deps.bundles.size(known.bundle)
    except errors.NotFound:
        return None
    return known


def adopt(deps: Deps, session: Session, earlier: Generation) -> None:
    """Make an earlier bundle the first version of a session that was created with it."""
    data = deps.bundles.get(earlier.bundle)
    manifest = deps.bundles.inspect(data)
    deps.store.bundles.add(
        BundleRecord(
            session_id=session.id,
            version=1,
            sha256=earlier.bundle,
            size_bytes=len(data),
            kind=manifest.kind,
            title=manifest.title,
            created_at=deps.clock.now(),
            delete_after=None,
            provider=CACHE,
            summary=earlier.summary,
        )
    )


def keep(deps: Deps, session: Session, version: BundleRecord) -> None:
    """Remember what a prompt came to, now that it was seen to run."""
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
    """What the model has usually written for a first version, or for a change; None while too
    little is known."""
    since = deps.clock.now() - _HISTORY
    past = deps.store.usage.outputs(changes=change, since=since, limit=_HISTORY_MAX)
    return round(median(past)) if len(past) >= _HISTORY_MIN else None


def _key(deps: Deps, session: Session) -> str:
    """The image is the version of the contract: what a sandbox offers is what is in it."""
    return generations.key_of(
        session.prompt,
        model=deps.policy.model,
        contract=deps.image(),
        tier=session.tier,
        user_id=None if deps.policy.share_between_users else session.user_id,
    )
