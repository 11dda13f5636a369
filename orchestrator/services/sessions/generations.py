"""Reuses the app of an equal prompt that was generated within the last hour.

Called when a session is created, and when its first version runs.
"""

from __future__ import annotations

from dataclasses import replace
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


def find_version(deps: Deps, session: Session) -> BundleRecord | None:
    """The app of an equal prompt as the first version of this session, if it still exists."""
    generation = deps.store.generations.find(_key(deps, session), deps.clock.now())
    if generation is None:
        return None
    try:
        deps.bundles.touch(generation.bundle)  # so that no sweep deletes it before it is adopted
    except errors.NotFound:
        return None
    records = deps.store.bundles.list(generation.session_id)
    record = next((record for record in records if record.sha256 == generation.bundle), None)
    if record is None:
        return None
    return replace(
        record,
        session_id=session.id,
        version=1,
        created_at=deps.clock.now(),
        delete_after=None,
        healthy=True,
        change=0,
        provider=CACHE,
        summary=generation.summary,
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
