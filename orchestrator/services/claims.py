"""Sandboxes: whose turn it is, placing, starting, retiring, removing. For converge and loops."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime

from orchestrator import ports
from orchestrator.domain import errors, ids, pool, sandbox
from orchestrator.domain.host import HostState
from orchestrator.domain.host import move as move_host
from orchestrator.domain.ids import HostId
from orchestrator.domain.sandbox import Sandbox, SandboxState
from orchestrator.domain.session import Session
from orchestrator.services.deps import Deps


def its_turn(store: ports.Store, found: Session, now: datetime) -> bool:
    """Whether there is enough for everybody who is before this session in the queue.

    Keeps the position that we show honest: a newcomer never takes what an earlier one waits for.
    """
    ahead = store.sessions.ahead_of(found, now)
    return ahead == 0 or ahead < available(store)


def available(store: ports.Store) -> int:
    """Sessions that could have a sandbox right now: warm ones and free slots."""
    warm = len(store.sandboxes.list(states=[SandboxState.WARM]))
    return warm + sum(load.free for load in store.hosts.loads() if pool.open_for_placement(load))


def place(deps: Deps, moved: Session, now: datetime) -> Sandbox:
    """Commit the intent of a sandbox for this session. Raises NoCapacity, StaleWrite."""
    new = ports.NewSandbox(
        id=ids.new_sandbox_id(),
        session_id=moved.id,
        slug=moved.slug or ids.new_slug(),
        image=deps.image(),
    )
    placed = replace(moved, sandbox_id=new.id, slug=new.slug)
    return deps.store.sandboxes.place_for(placed, new, now)


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
    stopping = sandbox.move(box, SandboxState.STOPPING, deps.clock.now(), reason)
    deps.store.sandboxes.save(stopping, expected=box.state)
    deps.events.routes_changed()
    deps.events.inbox_changed(box.id)


def remove(deps: Deps, box: Sandbox) -> None:
    """Remove the container and give slot and port back. Only after the route's withdrawal.
    Raises EngineUnavailable: then nothing is given back, for the container may still run."""
    if box.routed:
        raise errors.Conflict(f"the route of {box.id} is still published")
    host = deps.store.hosts.get(box.host_id)
    deps.engines.of(host).remove(box.id)
    gone = sandbox.move(box, SandboxState.GONE, deps.clock.now())
    deps.store.sandboxes.save(gone, expected=SandboxState.STOPPING)
    deps.events.pool_changed()


def suspect(store: ports.Store, host_id: HostId, reason: str) -> None:
    """Take a host out of placement until the probe finds it well again."""
    host = store.hosts.get(host_id)
    if host.state is HostState.UP:
        store.hosts.put(move_host(host, HostState.SUSPECT, reason))
