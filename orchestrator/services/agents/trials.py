"""Which version an agent may have tried, and whether it is still wanted after that.

`entrypoints/api/agents/walks.py` opens it in between, as a visitor would.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.contract.health import Condition, Finding
from orchestrator.domain import errors
from orchestrator.domain.ids import Slug, UserId
from orchestrator.domain.sessions.session import Session
from orchestrator.services.agents import access
from orchestrator.services.deps import Deps


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A version to be opened."""

    user_id: UserId
    slug: Slug  # of its sandbox


def find_trial(deps: Deps, token: str) -> Trial | Finding:
    """The public address of the sandbox that asks; a Finding, if it has none.

    Raises the errors of `access.authorize`.
    """
    session = _authorize(deps, token)
    try:
        sandbox = deps.store.sandboxes.get(deps.tokens.read_session(token).sandbox_id)
    except errors.NotFound:
        return Finding(condition=Condition.UNREACHED, problem="The sandbox is gone.")
    if not sandbox.routed:
        problem = "The proxy has not published the app's route yet."
        return Finding(condition=Condition.UNREACHED, problem=problem)
    return Trial(user_id=session.user_id, slug=sandbox.slug)


def check_wanted(deps: Deps, token: str) -> None:
    """Check that the change is still under way: else its version must not be shown.

    Raises the errors of `access.authorize`.
    """
    _authorize(deps, token)


def _authorize(deps: Deps, token: str) -> Session:
    session = access.authorize(deps, token)
    if deps.tokens.read_session(token).change and not session.is_changing:
        raise errors.Forbidden("that change has ended", code="token_refused")
    return session
