"""Keeping sandboxes warm. Called by the refill loop; each function is one pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from orchestrator import ports
from orchestrator.domain import errors, ids
from orchestrator.domain.pool import refill as pool
from orchestrator.domain.pool.sandbox import Sandbox, SandboxState
from orchestrator.domain.sessions.session import SessionState
from orchestrator.services.deps import Deps
from orchestrator.services.pool import claims


def level(deps: Deps, postponed_s: float = 0.0) -> pool.WarmLevel:
    """What a refill decides on. `postponed_s`: for how long it has given way to sessions."""
    warm = deps.store.sandboxes.warm_counts()
    fresh = warm.get(deps.image(), 0)
    return pool.WarmLevel(
        target=deps.policy.warm_target,
        reserve=deps.policy.free_slots,
        warm=fresh,
        outdated=sum(warm.values()) - fresh,
        warming=deps.store.sandboxes.warming(),
        waiting=deps.store.sessions.waiting(deps.clock.now()),
        # Not those GENERATING: Claude takes a while, and the machine has nothing to do meanwhile.
        arriving=deps.store.sessions.count_in([SessionState.PROVISIONING, SessionState.DEPLOYING]),
        postponed_s=postponed_s,
        totals=deps.store.hosts.totals(),
    )


def refill(
    deps: Deps, launch: Callable[[Sandbox], object], postponed_s: float = 0.0
) -> pool.Refill:
    """One pass: commit the intents of the sandboxes that are missing, and have each launched."""
    decision = pool.refill(level(deps, postponed_s))
    for _ in range(decision.starts):
        new = ports.NewSandbox(
            id=ids.new_sandbox_id(), session_id=None, slug=ids.new_slug(), image=deps.image()
        )
        try:
            box = deps.store.sandboxes.place(new, deps.clock.now())
        except errors.NoCapacity as full:
            return replace(decision, reason=str(full))
        deps.events.routes_changed()
        launch(box)
    return decision


def launch(deps: Deps, box: Sandbox) -> None:
    """Start one warm sandbox. What can't be started is BROKEN, and the reconcile loop clears it.
    Raises errors.Temporary so that the caller backs off."""
    try:
        claims.start(deps, box, replace_stale=False)
    except errors.SpawnError as error:
        broken = box.transition(SandboxState.BROKEN, deps.clock.now(), str(error)[:200])
        deps.store.sandboxes.save(broken, expected=SandboxState.CREATING)
        if isinstance(error, errors.EngineUnavailable):
            claims.suspect(deps, box.host_id, str(error))
        elif isinstance(error, errors.SandboxRefused):
            claims.take_note(deps, box.host_id, error)
        raise


def retire_surplus(deps: Deps) -> int:
    """Let go of warm sandboxes that are too many, those of an older image and then the oldest
    first; how many. Of those that could be claimed, for only they were counted."""
    count = pool.surplus(level(deps))
    if not count:
        return 0
    serving = {one.id for one in deps.store.hosts.list() if one.serving}
    warm = deps.store.sandboxes.list(states=[SandboxState.WARM])
    warm = [box for box in warm if box.host_id in serving]
    for box in sorted(warm, key=lambda box: box.image == deps.image())[:count]:
        outdated = box.image != deps.image()
        claims.retire(
            deps,
            box,
            "made from an older runtime image" if outdated else "more warm sandboxes than wanted",
        )
    return count
