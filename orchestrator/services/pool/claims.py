"""Sandboxes: whose turn it is, placing, starting, retiring, removing. For converge and loops."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime

from orchestrator import ports
from orchestrator.domain import errors, ids
from orchestrator.domain.ids import HostId
from orchestrator.domain.pool.host import Host, HostState
from orchestrator.domain.pool.sandbox import Sandbox, SandboxState
from orchestrator.domain.sessions.session import Move, Session
from orchestrator.services.deps import Deps


def its_turn(store: ports.Store, found: Session, now: datetime) -> bool:
    """Whether there is enough for everybody who is before this session in the queue.

    Keeps the position that we show honest: a newcomer never takes what an earlier one waits for.
    """
    ahead = store.sessions.ahead_of(found, now)
    return ahead == 0 or available(store, ahead + 1) > ahead


def available(store: ports.Store, enough: int) -> int:
    """Sessions that could have a sandbox right now, by warm ones and free slots; counted no
    further than `enough`, so that a large pool isn't counted through."""
    warm = min(enough, sum(store.sandboxes.warm_counts().values()))
    return warm if warm == enough else warm + store.hosts.room(enough - warm)


def place(deps: Deps, moved: Session, now: datetime) -> Sandbox:
    """Commit the intent of a sandbox for this session. Raises NoCapacity, StaleWrite."""
    new = ports.NewSandbox(
        id=ids.new_sandbox_id(),
        session_id=moved.id,
        slug=moved.slug or ids.new_slug(),
        image=deps.image(),
        wish=moved.wish,
        avoid=moved.refused_by,
    )
    placed = replace(moved, sandbox_id=new.id, slug=new.slug)
    return deps.store.sandboxes.place_for(placed, new, now)


def place_successor(deps: Deps, found: Session, now: datetime) -> Sandbox:
    """Commit the intent of the sandbox that a session moves to, under a slug of its own until the
    session's goes over. Raises NoCapacity, StaleWrite."""
    new = ports.NewSandbox(
        id=ids.new_sandbox_id(),
        session_id=found.id,
        slug=ids.new_slug(),
        image=deps.image(),
        wish=found.wish,
        avoid=found.refused_by,
    )
    return deps.store.sandboxes.place_for(replace(found, move=Move(sandbox_id=new.id)), new, now)


def start(deps: Deps, box: Sandbox, *, replace_stale: bool) -> None:
    """Create and start the container of a committed intent. Raises EngineUnavailable,
    SandboxRefused."""
    host = deps.store.hosts.get(box.host_id)
    identity = {
        "sandbox_id": box.id,
        "token": deps.tokens.for_sandbox(box.id),
        "slug": box.slug,
    }
    spec = ports.SandboxSpec(
        sandbox_id=box.id,
        image=box.image,
        publish_address=host.publish_address,
        port=box.port,
        agent_folder=host.agent_folder,
        identity=json.dumps(identity),
    )
    container_id = deps.engines.of(host).start(spec, replace_stale=replace_stale)
    deps.store.sandboxes.set_container(box.id, container_id)


def retire(deps: Deps, box: Sandbox, reason: str) -> None:
    """Take a sandbox out of the route table; the publisher withdraws its route and confirms."""
    stopping = box.transition(SandboxState.STOPPING, deps.clock.now(), reason)
    deps.store.sandboxes.save(stopping, expected=box.state)
    deps.events.routes_changed()
    deps.events.inbox_changed(box.id)


def abandon(deps: Deps, box: Sandbox, reason: str) -> None:
    """Take a sandbox from its session: the reconcile loop retires and removes it."""
    if box.state is SandboxState.GONE:
        return
    left = replace(box, session_id=None)
    if box.state is not SandboxState.STOPPING:
        left = left.transition(SandboxState.STOPPING, deps.clock.now(), reason[:200])
    deps.store.sandboxes.save(left, expected=box.state)
    deps.events.routes_changed()
    deps.events.inbox_changed(box.id)


def remove(deps: Deps, box: Sandbox) -> None:
    """Remove the container and give slot and port back. Only after the route's withdrawal.

    On a host that is LOST there is nobody to ask: whatever is left there is removed before that
    host is UP again. Raises EngineUnavailable otherwise: then nothing is given back, for the
    container may still run.
    """
    if box.routed:
        raise errors.Conflict(f"the route of {box.id} is still published")
    host = deps.store.hosts.get(box.host_id)
    if host.state is not HostState.LOST:
        deps.engines.of(host).remove(box.id)
    gone = box.transition(SandboxState.GONE, deps.clock.now())
    deps.store.sandboxes.save(gone, expected=SandboxState.STOPPING)
    deps.events.pool_changed()


def suspect(deps: Deps, host_id: HostId, reason: str) -> None:
    """Take a host out of placement until it is found well again."""
    now = deps.clock.now()

    def doubted(host: Host) -> Host:
        doubtful = host.state in {HostState.UP, HostState.JOINING}
        return host.transition(HostState.SUSPECT, now, reason) if doubtful else host

    deps.store.hosts.change(host_id, doubted)
    deps.events.pool_changed()


def take_note(deps: Deps, host_id: HostId, refusal: errors.SandboxRefused) -> None:
    """What a refusal says of the host itself, so that the next session isn't sent there too."""
    if refusal.code == "image_missing":
        suspect(deps, host_id, str(refusal))
    elif refusal.code == "disk_full":
        full = "its disk is full"
        deps.store.hosts.change(host_id, lambda host: replace(host, shortage=full))
