"""Hosts as operators add, cordon and drain them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.domain import errors
from orchestrator.domain.pool.host import Drain, Host, HostState
from orchestrator.domain.pool.sandbox import SandboxState
from orchestrator.domain.sessions.session import SessionState
from orchestrator.services.pool import hosts
from orchestrator.services.pool.hosts import NewHost
from tests.fakes.samples import NOW
from tests.unit.services.world import OPERATOR, World

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ6mDFPjvBsaLkjLPnYWD3ZpkBhFwX2bXyZ0123456Y"


def new_host(**changes: Any) -> NewHost:
    fields: dict[str, Any] = {
        "name": "paris-1",
        "address": "ssh://root@10.0.0.5:2222",
        "host_key": KEY,
        "publish_address": "10.0.0.5",
        "machine_id": "f" * 32,
        "slots": 8,
        "region": "eu",
        "labels": {"gpu": "yes"},
    }
    return NewHost(**{**fields, **changes})


def add(world: World, **changes: Any) -> Host:
    return hosts.add(world.deps, OPERATOR, new_host(**changes))


def audited(world: World) -> list[tuple[str, str]]:
    return [(entry.action, entry.subject) for entry in reversed(world.store.audit.list())]


# Adding


def test_a_host_that_is_added_joins_and_takes_nothing_yet(world: World) -> None:
    host = add(world)
    assert world.store.hosts.by_name("paris-1") == host
    assert host == Host(
        id=host.id,
        name="paris-1",
        docker_url="ssh://root@10.0.0.5:2222",
        publish_address="10.0.0.5",
        agent_folder=world.policy.agent_folder_of_hosts,
        state=HostState.JOINING,
        slots=8,
        created_at=NOW,
        state_since=NOW,
        host_key=KEY,
        machine_id="f" * 32,
        region="eu",
        labels={"gpu": "yes"},
        reason="it was just added",
    )
    assert not host.accepts_placements
    assert audited(world) == [("host_added", "paris-1")]
    assert world.events.sent == ["hosts"]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": "Paris 1"}, "name"),
        ({"address": "10.0.0.5"}, "address"),
        ({"address": "ssh://root:secret@10.0.0.5"}, "address"),
        ({"host_key": "SHA256:abcdef"}, "host_key"),
        ({"host_key": f"10.0.0.5 {KEY}"}, "host_key"),
        ({"host_key": f"{KEY}\n{KEY}"}, "host_key"),
        ({"publish_address": "0.0.0.0"}, "publish_address"),
        ({"slots": 0}, "slots"),
        ({"slots": 1001}, "slots"),
        ({"region": "eu west"}, "region"),
        ({"labels": {"gpu": "a b"}}, "labels"),
    ],
    ids=str,
)
def test_a_wrong_field_is_named_and_no_host_is_added(
    world: World, changes: dict[str, Any], field: str
) -> None:
    with pytest.raises(errors.InvalidInput) as caught:
        add(world, **changes)
    assert caught.value.detail["field"] == field
    assert world.store.hosts.list() == []
    assert audited(world) == []


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"name": "paris-1"}, "host_exists", "named paris-1"),
        ({"address": "ssh://root@10.0.0.5:2222"}, "host_exists", "as paris-1"),
        ({"machine_id": "f" * 32}, "machine_known", "as paris-1"),
        ({"publish_address": "10.0.0.5"}, "publish_address_taken", "paris-1"),
    ],
    ids=str,
)
def test_a_host_is_not_added_twice_under_another_name(
    world: World, changes: dict[str, Any], code: str, message: str
) -> None:
    first = add(world)
    other = {
        "name": "berlin-1",
        "address": "ssh://root@10.0.0.6",
        "publish_address": "10.0.0.6",
        "machine_id": "e" * 32,
    }
    with pytest.raises(errors.Conflict, match=message) as caught:
        add(world, **{**other, **changes})
    assert caught.value.code == code
    assert world.store.hosts.list() == [first]
    assert add(world, **other).name == "berlin-1"


def test_the_error_for_an_unknown_host_lists_the_existing_ones(world: World) -> None:
    with pytest.raises(errors.NotFound, match="there are: none"):
        hosts.find(world.deps, "paris-1")
    add(world)
    with pytest.raises(errors.NotFound, match="there are: paris-1") as caught:
        hosts.find(world.deps, "berlin-1")
    assert caught.value.code == "host_unknown"


@pytest.mark.parametrize(
    "call",
    [
        lambda deps: hosts.cordon(deps, OPERATOR, "nobody", cordoned=True),
        lambda deps: hosts.drain(deps, OPERATOR, "nobody", Drain.WAIT),
        lambda deps: hosts.remove(deps, OPERATOR, "nobody", force=True),
    ],
    ids=["cordon", "drain", "remove"],
)
def test_an_unknown_host_can_not_be_changed(world: World, call: Callable[[Any], object]) -> None:
    with pytest.raises(errors.NotFound):
        call(world.deps)


# Cordon and drain


def test_a_cordoned_host_keeps_what_it_has_and_gets_nothing_new(world: World) -> None:
    host = world.add_host()
    ready = world.run_session(world.create_session())
    warm = world.add_warm_sandbox()
    assert hosts.cordon(world.deps, OPERATOR, host.name, cordoned=True).cordoned
    waiting = world.create_session()
    world.converge(waiting)
    assert world.state(waiting) is SessionState.QUEUED
    assert world.state(ready) is SessionState.READY
    assert world.sandbox(warm.id).state is SandboxState.WARM

    hosts.cordon(world.deps, OPERATOR, host.name, cordoned=False)
    world.converge(waiting)
    assert world.sandbox_of(waiting).id == warm.id
    assert audited(world) == [("host_cordoned", host.name), ("host_uncordoned", host.name)]


def test_uncordoning_takes_a_drain_back(world: World) -> None:
    host = world.add_host()
    hosts.drain(world.deps, OPERATOR, host.name, Drain.WAIT)
    assert hosts.cordon(world.deps, OPERATOR, host.name, cordoned=True).drain is Drain.WAIT
    assert hosts.cordon(world.deps, OPERATOR, host.name, cordoned=False) == host


def test_a_host_is_not_drained_to_nowhere(world: World) -> None:
    host = world.add_host()
    world.add_host(cordoned=True)
    world.add_host(state=HostState.SUSPECT)
    with pytest.raises(errors.Conflict, match="--wait") as caught:
        hosts.drain(world.deps, OPERATOR, host.name, Drain.MOVE)
    assert caught.value.code == "nowhere_to_go"
    assert world.store.hosts.get(host.id) == host
    assert hosts.drain(world.deps, OPERATOR, host.name, Drain.WAIT).drain is Drain.WAIT
    world.add_host()
    assert hosts.drain(world.deps, OPERATOR, host.name, Drain.MOVE).drain is Drain.MOVE


def test_a_leaving_host_can_not_be_called_back(world: World) -> None:
    world.add_host()
    add(world)
    hosts.remove(world.deps, OPERATOR, "paris-1", force=False)
    for call in (
        lambda: hosts.cordon(world.deps, OPERATOR, "paris-1", cordoned=False),
        lambda: hosts.drain(world.deps, OPERATOR, "paris-1", Drain.MOVE),
    ):
        with pytest.raises(errors.Conflict) as caught:
            call()
        assert caught.value.code == "host_leaving"
    host = world.store.hosts.by_name("paris-1")
    assert host is not None
    assert host.drain is Drain.LEAVE
