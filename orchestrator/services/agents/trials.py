"""Opens a version that an agent tries, as a visitor would. Called by the agent app."""

from __future__ import annotations

from orchestrator.contract.health import Condition, Finding
from orchestrator.contract.wire.trials import TRIAL_LIMIT_S
from orchestrator.domain import errors
from orchestrator.services.agents import access
from orchestrator.services.deps import Deps

NOT_TRIED = Finding(
    condition=Condition.UNREACHED, problem="The control plane has too much to do to open the app."
)


def walk_trial(deps: Deps, token: str, secret: str) -> Finding:
    """Walk the public address of the sandbox that asks, to the version with this secret.

    Blocks as long as the app takes, for TRIAL_LIMIT_S at most. Raises the errors of
    `access.authorize`.
    """
    access.authorize(deps, token)
    sandbox_id = deps.tokens.read_session(token).sandbox_id
    try:
        sandbox = deps.store.sandboxes.get(sandbox_id)
    except errors.NotFound:
        return Finding(condition=Condition.UNREACHED, problem="The sandbox is gone.")
    if not sandbox.routed:
        problem = "The proxy has not published the app's route yet."
        return Finding(condition=Condition.UNREACHED, problem=problem)
    return deps.probe.walk(sandbox.slug, TRIAL_LIMIT_S, secret)
