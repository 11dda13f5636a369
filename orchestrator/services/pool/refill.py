"""Keeps sandboxes warm. Called by the refill loop; each function is one pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta

from orchestrator import ports
from orchestrator.domain import errors, ids
from orchestrator.domain.ids import HostId
from orchestrator.domain.pool.refill import Arrivals, Refill, Stock, WarmLevel, refill, surplus
from orchestrator.domain.pool.sandbox import Sandbox, SandboxState
from orchestrator.services.deps import Deps
from orchestrator.services.pool import claims

# A start that takes longer is not counted on: its host may hang. A start takes a second or two.
_START_MAX = timedelta(seconds=10)


def is_full(deps: Deps) -> bool:
    """Whether there are exactly as many warm sandboxes as wanted, and none of an older image."""
    wanted = {deps.image(): deps.policy.warm_target} if deps.policy.warm_target else {}
    return deps.store.sandboxes.warm_counts() == wanted


def measure_level(deps: Deps, arrivals: Arrivals | None = None) -> WarmLevel:
    """The facts that a refill decides on. `arrivals`: the sessions that are arriving, if any."""
    warm_counts = deps.store.sandboxes.warm_counts()
    warm = warm_counts.get(deps.image(), 0)
    return WarmLevel(
        target=deps.policy.warm_target,
        reserve=deps.policy.free_slots,
        warm=warm,
        outdated=sum(warm_counts.values()) - warm,
        warming=deps.store.sandboxes.count_warming(deps.clock.now() - _START_MAX),
        waiting=claims.count_served(deps.store, deps.clock.now()),
        cold=0 if arrivals is None else deps.store.sandboxes.count_cold(),
        arrivals=arrivals,
        totals=deps.store.hosts.totals(),
    )


def measure_stock(deps: Deps) -> Stock:
    """What the pool has for sessions, and what these lack."""
    return Stock(
        target=deps.policy.warm_target,
        warm=sum(deps.store.sandboxes.warm_counts().values()),
        waiting=claims.count_served(deps.store, deps.clock.now()),
        cold=deps.store.sandboxes.count_cold(),
    )


def start_missing(
    deps: Deps,
    launch_later: Callable[[Sandbox], object],
    level: WarmLevel | None = None,
    avoid: Sequence[HostId] = (),
) -> Refill:
    """Commit the intents of the missing warm sandboxes, and pass each to `launch_later`.

    None is placed on the hosts in `avoid`. Returns how many were placed.
    """
    decision = refill(level or measure_level(deps))
    for count in range(decision.starts):
        new = ports.NewSandbox(
            id=ids.new_sandbox_id(),
            session_id=None,
            slug=ids.new_slug(),
            image=deps.image(),
            raised=deps.policy.cpus.can_differ,
            avoid=tuple(avoid),
        )
        try:
            sandbox = deps.store.sandboxes.place(new, deps.clock.now())
        except errors.NoCapacity as error:
            return replace(decision, starts=count, reason=str(error))
        deps.events.routes_changed()
        launch_later(sandbox)
    return decision


def launch(deps: Deps, sandbox: Sandbox) -> None:
    """Start one warm sandbox. If that fails it is BROKEN, and the clear loop removes it.

    Raises the errors of `claims.start`, so that the caller backs off.
    """
    try:
        claims.start(deps, sandbox)
    except errors.StaleWrite:
        raise  # somebody else decides about it now
    except errors.SpawnError as error:
        broken = sandbox.transition(SandboxState.BROKEN, deps.clock.now(), str(error)[:200])
        deps.store.sandboxes.save(broken, expected=SandboxState.CREATING)
        if isinstance(error, errors.EngineUnavailable):
            claims.mark_suspect(deps, sandbox.host_id, str(error))
        elif isinstance(error, errors.SandboxRefused):
            claims.record_refusal(deps, sandbox.host_id, error)
        raise


def retire_surplus(deps: Deps, level: WarmLevel | None = None) -> int:
    """Retire the warm sandboxes above the target, and return how many.

    Those of an older image go first, then the oldest. Only sandboxes that a session could claim
    are considered, because only those were counted.
    """
    count = surplus(level or measure_level(deps))
    if not count:
        return 0
    host_ids = {host.id for host in deps.store.hosts.list() if host.accepts_claims}
    warm = deps.store.sandboxes.list(states=[SandboxState.WARM])
    claimable = [sandbox for sandbox in warm if sandbox.host_id in host_ids]
    for sandbox in sorted(claimable, key=lambda sandbox: sandbox.image == deps.image())[:count]:
        is_outdated = sandbox.image != deps.image()
        claims.retire(
            deps,
            sandbox,
            "made from an older runtime image"
            if is_outdated
            else "more warm sandboxes than wanted",
        )
    return count
