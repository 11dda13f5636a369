"""The pool: refill the warm sandboxes, probe the hosts, treat what a diagnosis found, empty it.

Called by the daemon's loops; each function is one pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from orchestrator import ports
from orchestrator.domain import diagnosis, errors, ids, pool, sandbox
from orchestrator.domain.diagnosis import Leftover, Orphan, Silent, Stuck, Unnoticed, Vanished
from orchestrator.domain.host import Host, HostState
from orchestrator.domain.host import move as move_host
from orchestrator.domain.sandbox import Sandbox, SandboxState
from orchestrator.domain.session import SessionState
from orchestrator.services import claims
from orchestrator.services.deps import Deps
from orchestrator.services.nudges import nudge


def level(deps: Deps, postponed_s: float = 0.0) -> pool.WarmLevel:
    """What a refill decides on. `postponed_s`: for how long it has given way to sessions."""
    counts = deps.store.sessions.counts()
    boxes = deps.store.sandboxes.list(states=[SandboxState.WARM, SandboxState.CREATING])
    return pool.WarmLevel(
        target=deps.policy.warm_target,
        warm=sum(box.state is SandboxState.WARM for box in boxes),
        warming=sum(box.state is SandboxState.CREATING and box.session_id is None for box in boxes),
        waiting=deps.store.sessions.waiting(deps.clock.now()),
        # Not those GENERATING: Claude takes a while, and the machine has nothing to do meanwhile.
        arriving=counts.get(SessionState.PROVISIONING, 0) + counts.get(SessionState.DEPLOYING, 0),
        postponed_s=postponed_s,
        loads=tuple(deps.store.hosts.loads()),
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
        broken = sandbox.move(box, SandboxState.BROKEN, deps.clock.now(), str(error)[:200])
        deps.store.sandboxes.save(broken, expected=SandboxState.CREATING)
        if isinstance(error, errors.EngineUnavailable):
            claims.suspect(deps.store, box.host_id, str(error))
        raise


def retire_outdated(deps: Deps) -> int:
    """Let go of warm sandboxes made from another image than today's; how many."""
    outdated = [
        box
        for box in deps.store.sandboxes.list(states=[SandboxState.WARM])
        if box.image != deps.image()
    ]
    for box in outdated:
        claims.retire(deps, box, "made from an older runtime image")
    return len(outdated)


def retire_surplus(deps: Deps) -> int:
    """Let go of warm sandboxes above the target, the oldest first; how many."""
    warm = deps.store.sandboxes.list(states=[SandboxState.WARM])
    surplus = warm[: max(0, len(warm) - deps.policy.warm_target)]
    for box in surplus:
        claims.retire(deps, box, "more warm sandboxes than wanted")
    return len(surplus)


def probe(deps: Deps, host: Host) -> Host:
    """Ask one host's engine whether it is there and has the image; writes what changed."""
    now = deps.clock.now()
    engine = deps.engines.of(host)
    try:
        ready = engine.image_present(deps.image())
        if ready and host.state is not HostState.UP:
            engine.prepare()  # no sandbox before its network and its fences stand
    except errors.SpawnError as error:
        state, reason, seen = HostState.SUSPECT, str(error), host.seen_at
    else:
        missing = f"the runtime image {deps.image()} is missing: run `spawnctl image build`"
        state = HostState.UP if ready else HostState.SUSPECT
        reason, seen = ("" if ready else missing), now
    # Asking may have taken seconds, in which an operator may have cordoned the host.
    host = deps.store.hosts.get(host.id)
    if host.state is HostState.LOST and state is HostState.SUSPECT:
        state = HostState.LOST  # it still doesn't answer
    after = replace(move_host(host, state, reason), seen_at=seen)
    if (after.state, after.reason) != (host.state, host.reason) or _is_old(host, now):
        deps.store.hosts.put(after)
    if after.state is HostState.UP and host.state is not HostState.UP:
        deps.events.pool_changed()
    return after


def fence(deps: Deps, host: Host) -> Sequence[str]:
    """See to it that a host's network and egress rules stand, whoever flushed them; returns what
    could not be set, for people."""
    try:
        return deps.engines.of(host).prepare()
    except errors.EngineUnavailable as error:
        return [str(error)]


@dataclass(frozen=True, kw_only=True)
class Treated:
    """What one reconcile pass did on one host."""

    orphans: int = 0
    broken: int = 0
    leftovers: int = 0


def reconcile(deps: Deps, host: Host, agents_heard_since: datetime) -> Treated:
    """Compare one host with the store, and set right what differs. Raises EngineUnavailable."""
    engine = deps.engines.of(host)
    containers = engine.containers()
    boxes = deps.store.sandboxes.list(host_id=host.id)
    orphans = broken = leftovers = 0
    for found in diagnosis.diagnose(containers, boxes, deps.clock.now(), agents_heard_since):
        try:
            match found:
                case Orphan():
                    engine.remove(found.container.sandbox_id)
                    orphans += 1
                case Vanished() if _came_up(engine, found.sandbox):
                    continue
                case Vanished() | Stuck() | Silent():
                    _break(deps, found.sandbox, found.reason)
                    broken += 1
                case Unnoticed():
                    _make_due(deps, found.sandbox)
                case Leftover():
                    _let_go(deps, found.sandbox)
                    leftovers += 1
        except errors.StaleWrite:
            continue  # it moved since we looked; the next pass looks again
    return Treated(orphans=orphans, broken=broken, leftovers=leftovers)


def empty(deps: Deps) -> int:
    """Remove every container of this installation, whatever the store says; how many there were.

    For `spawnctl down`: sessions stay in the store, and come back from their bundles at the next
    start. Only when no worker and no loop runs any more.
    """
    count = 0
    for host in deps.store.hosts.list():
        engine = deps.engines.of(host)
        for container in engine.containers():
            engine.remove(container.sandbox_id)
            count += 1
        engine.dismantle()
    return count


def _is_old(host: Host, now: datetime) -> bool:
    return host.seen_at is None or (now - host.seen_at).total_seconds() > 10


def _came_up(engine: ports.Engine, box: Sandbox) -> bool:
    """Whether the container of a sandbox that seemed to have none runs after all: it was started
    and written down between the two looks that a diagnosis compares."""
    return any(one.sandbox_id == box.id and one.running for one in engine.containers())


def _break(deps: Deps, box: Sandbox, reason: str) -> None:
    broken = sandbox.move(box, SandboxState.BROKEN, deps.clock.now(), reason)
    deps.store.sandboxes.save(broken, expected=box.state)
    deps.events.routes_changed()
    _make_due(deps, box)


def _make_due(deps: Deps, box: Sandbox) -> None:
    """Have a session act on its broken sandbox. A lost race here is made up for by the next pass:
    the sandbox is then Unnoticed."""
    if box.session_id is None:
        return
    found = deps.store.sessions.get(box.session_id)
    nudge(deps, deps.store.sessions.save(replace(found, due_at=deps.clock.now())))


def _let_go(deps: Deps, box: Sandbox) -> None:
    """A sandbox that no session cares for, a step nearer to GONE."""
    if box.state is SandboxState.BROKEN:
        claims.retire(deps, box, box.reason)
    elif not box.routed:
        claims.remove(deps, box)
