"""Hosts leave the pool: empty ones, by force, and ones that don't answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.domain import errors
from orchestrator.domain.pool.host import Drain, Host, HostState
from orchestrator.services.pool import host_life, hosts
from tests.fakes.engine import EngineInMemory, EngineThatIsDown
from tests.fakes.fleet import REACHABLE
from tests.unit.services.world import OPERATOR, World

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ6mDFPjvBsaLkjLPnYWD3ZpkBhFwX2bXyZ0123456Y"


def audited(world: World) -> list[tuple[str, str]]:
    return [(entry.action, entry.subject) for entry in reversed(world.store.audit.list())]


def remote(world: World, **changes: Any) -> Host:
    """A host that is reached by SSH, with an engine of its own."""
    fields = {"docker_url": "ssh://root@10.0.0.9", "publish_address": "10.0.0.9", **changes}
    host = world.add_host(**fields)
    world.engines.special[host.id] = EngineInMemory()
    return host


def test_this_machines_own_engine_can_not_be_removed(world: World) -> None:
    host = world.add_host()
    with pytest.raises(errors.Conflict, match="SPAWN_LOCAL_HOST=false") as caught:
        hosts.remove(world.deps, OPERATOR, host.name, force=True)
    assert caught.value.code == "host_is_local"
    assert world.store.hosts.get(host.id) == host


def test_a_host_with_sessions_is_removed_by_force_alone(world: World) -> None:
    host = remote(world)
    world.run_session(world.create_session())
    world.add_warm_sandbox()
    with pytest.raises(errors.Conflict, match="--drain, or use --force") as caught:
        hosts.remove(world.deps, OPERATOR, host.name, force=False)
    assert (caught.value.code, caught.value.detail["sessions"]) == ("host_in_use", 1)
    assert world.store.hosts.get(host.id).drain is Drain.NONE
    hosts.remove(world.deps, OPERATOR, host.name, force=True)
    assert world.store.hosts.get(host.id).drain is Drain.LEAVE
    assert audited(world) == [("host_removed", host.name)]


def leave(world: World, host: Host) -> bool:
    """One pass of the drain loop, and the passes of other loops after it."""
    has_left = host_life.continue_removal(world.deps, world.fleet, world.store.hosts.get(host.id))
    world.clear()
    world.publish()
    world.clear()
    return has_left


def test_a_leaving_host_is_cleared_and_then_deleted(world: World) -> None:
    host = remote(world)
    engine = world.engines.special[host.id]
    assert isinstance(engine, EngineInMemory)
    world.add_warm_sandbox()
    hosts.remove(world.deps, OPERATOR, host.name, force=False)
    assert [leave(world, host) for _ in range(2)] == [False, True]
    assert world.store.hosts.list() == []
    assert (engine.containers_by_sandbox, engine.dismantled) == ({}, True)
    assert world.sandboxes() == []


def test_sessions_of_a_leaving_host_come_back_elsewhere_under_their_urls(
    world: World,
) -> None:
    host = remote(world)
    ready = world.run_session(world.create_session())
    world.add_host()
    hosts.remove(world.deps, OPERATOR, host.name, force=True)
    assert leave(world, host) is False
    assert world.proxy.slugs == set()
    world.settle(ready, rounds=3)
    assert world.host_of(ready).id != host.id
    assert world.session(ready).slug == ready.slug
    assert leave(world, host) is True


def test_a_leaving_host_that_does_not_answer_is_deleted_uncleared(world: World) -> None:
    host = remote(world)
    world.add_warm_sandbox()
    world.engines.special[host.id] = EngineThatIsDown()
    world.fleet.link_states[host.id] = replace(REACHABLE, up=False)
    hosts.remove(world.deps, OPERATOR, host.name, force=True)
    assert [leave(world, host) for _ in range(2)] == [False, True]
    assert world.store.hosts.list() == []


def test_a_leaving_host_whose_docker_fails_is_not_deleted_yet(world: World) -> None:
    host = remote(world)
    world.engines.special[host.id] = engine = EngineThatIsDown()
    hosts.remove(world.deps, OPERATOR, host.name, force=True)
    leave(world, host)
    with pytest.raises(errors.EngineUnavailable):
        leave(world, host)
    engine.down = False
    assert leave(world, host) is True


def test_a_host_that_is_being_admitted_still_leaves(
    world: World,
) -> None:
    host = remote(world, state=HostState.SUSPECT)
    hosts.remove(world.deps, OPERATOR, host.name, force=True)
    stale = world.store.hosts.get(host.id)
    host_life.admit(world.deps, world.fleet, stale)
    assert host_life.continue_removal(world.deps, world.fleet, stale) is False
    assert leave(world, host) is True
