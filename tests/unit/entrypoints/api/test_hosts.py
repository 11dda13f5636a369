"""/api/admin/hosts: the endpoints that `spawnctl hosts` uses."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.domain.pool.host import Drain, HostState
from orchestrator.ports import LinkGauges
from tests.fakes.samples import IMAGE, NOW, later
from tests.unit.entrypoints.api.conftest import Api
from tests.unit.services.world import World

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ6mDFPjvBsaLkjLPnYWD3ZpkBhFwX2bXyZ0123456Y"
NEW = {
    "name": "paris-1",
    "address": "ssh://root@10.0.0.5:2222",
    "host_key": KEY,
    "publish_address": "10.0.0.5",
    "machine_id": "f" * 32,
    "slots": 8,
    "region": "eu",
    "labels": {"gpu": "yes"},
}
HOSTS = "/api/admin/hosts"
REQUESTS = [
    ("GET", HOSTS, None),
    ("GET", f"{HOSTS}/paris-1", None),
    ("POST", HOSTS, NEW),
    ("POST", f"{HOSTS}/paris-1/cordon", None),
    ("POST", f"{HOSTS}/paris-1/uncordon", None),
    ("POST", f"{HOSTS}/paris-1/drain", {}),
    ("DELETE", f"{HOSTS}/paris-1", None),
]


@pytest.mark.parametrize(("method", "path", "body"), REQUESTS)
def test_only_operators_can_see_or_change_hosts(
    world: World, user: Api, visitor: Api, method: str, path: str, body: Any
) -> None:
    assert visitor(method, path, body)[0] == 401
    assert user(method, path, body)[0] == 403
    assert world.store.hosts.list() == []


@pytest.mark.parametrize(
    ("method", "path", "body"), [request for request in REQUESTS if "/paris" in request[1]]
)
def test_an_unknown_host_is_not_found(operator: Api, method: str, path: str, body: Any) -> None:
    status, problem = operator(method, path, body)
    assert (status, problem["code"]) == (404, "host_unknown")
    assert problem["detail"] == "there is no host 'paris-1'; there are: none"


def test_an_added_host_is_shown_with_all_its_fields(world: World, operator: Api) -> None:
    status, added = operator("POST", HOSTS, NEW)
    assert status == 201
    host = world.store.hosts.by_name("paris-1")
    assert host is not None
    assert added == {
        "name": "paris-1",
        "host_id": host.id,
        "state": "joining",
        "reason": "it was just added",
        "since": NOW.isoformat(),
        "cordoned": False,
        "drain": "none",
        "draining": False,
        "slots": 8,
        "used": 0,
        "starting": 0,
        "warm": 0,
        "region": "eu",
        "labels": {"gpu": "yes"},
        "address": "ssh://root@10.0.0.5:2222",
        "publish_address": "10.0.0.5",
        "host_key": KEY,
        "image": "",
        "shortage": "",
        "ports_set_aside": [],
        "cpus": 0,
        "changes_cpus": None,
        "starts_at_once": 3,
        "generation": 1,
        "seen_at": None,
        "link": None,
        "sandboxes": [],
    }
    assert operator("GET", f"{HOSTS}/paris-1") == (200, added)
    del added["sandboxes"]
    assert operator("GET", HOSTS) == (200, {"hosts": [added]})


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"name": "Paris 1"}, 422, "invalid_input"),
        ({"slots": 0}, 422, "invalid_input"),
        ({"slots": "many"}, 422, "invalid_input"),
        ({"machine_id": "../../etc"}, 422, "invalid_input"),
        ({"surprise": 1}, 422, "invalid_input"),
        ({"address": "ssh://root:secret@10.0.0.5"}, 422, "invalid_input"),
        ({"publish_address": "10.0.0.6", "machine_id": "e" * 32}, 409, "host_exists"),
        (
            {"name": "b", "address": "ssh://root@b", "publish_address": "10.0.0.6"},
            409,
            "machine_known",
        ),
        (
            {"name": "b", "address": "ssh://root@b", "machine_id": "e" * 32},
            409,
            "publish_address_taken",
        ),
    ],
    ids=str,
)
def test_each_fault_of_a_new_host_is_a_problem_with_its_own_code(
    operator: Api, changes: dict[str, Any], status: int, code: str
) -> None:
    if status == 409:
        operator("POST", HOSTS, NEW)
    actual, problem = operator("POST", HOSTS, {**NEW, **changes})
    assert (actual, problem["code"]) == (status, code)
    assert "secret" not in str(problem)
    assert len(operator("GET", HOSTS)[1]["hosts"]) == (1 if status == 409 else 0)


def test_a_host_is_shown_with_its_sandboxes_and_its_link(world: World, operator: Api) -> None:
    host = world.add_host(name="alpha", seen_at=later(-3))
    warm = world.add_warm_sandbox()
    ready = world.run_session(world.create_session())
    gauges = LinkGauges(
        host="alpha", up=True, docker=False, channels=4, rtt_s=0.01234, reconnects=2
    )
    world.board.post([gauges])
    _, shown = operator("GET", f"{HOSTS}/alpha")
    assert shown["link"] == {
        "up": True,
        "docker": False,
        "channels": 4,
        "rtt_ms": 12.34,
        "reconnects": 2,
    }
    assert (shown["used"], shown["warm"], shown["seen_at"]) == (2, 1, later(-3).isoformat())
    sandboxes = {sandbox["sandbox_id"]: sandbox for sandbox in shown["sandboxes"]}
    assert {sandbox["state"] for sandbox in sandboxes.values()} == {"warm", "claimed"}
    assert {sandbox["session_id"] for sandbox in sandboxes.values()} == {None, ready.id}
    assert {sandbox["image"] for sandbox in sandboxes.values()} == {IMAGE}
    assert warm.id in sandboxes
    assert "slug" not in str(shown), "an app's URL is secret: only its user may see it"
    assert host.id == shown["host_id"]


def test_a_host_is_cordoned_and_uncordoned(world: World, operator: Api) -> None:
    world.add_host(name="alpha")
    status, shown = operator("POST", f"{HOSTS}/alpha/cordon")
    assert (status, shown["cordoned"]) == (200, True)
    status, shown = operator("POST", f"{HOSTS}/alpha/uncordon")
    assert (status, shown["cordoned"], shown["drain"]) == (200, False, "none")


def test_a_host_is_drained_by_moving_or_by_waiting(world: World, operator: Api) -> None:
    world.add_host(name="alpha")
    status, problem = operator("POST", f"{HOSTS}/alpha/drain", {})
    assert (status, problem["code"]) == (409, "nowhere_to_go")
    status, shown = operator("POST", f"{HOSTS}/alpha/drain", {"wait": True})
    assert (status, shown["drain"], shown["draining"]) == (200, "wait", True)
    world.add_host(name="beta")
    status, shown = operator("POST", f"{HOSTS}/alpha/drain", {})
    assert (status, shown["drain"]) == (200, "move")
    status, problem = operator("POST", f"{HOSTS}/alpha/drain", {"how": "move"})
    assert (status, problem["code"]) == (422, "invalid_input")


def test_a_host_with_sessions_is_removed_only_by_force(world: World, operator: Api) -> None:
    host = world.add_host(name="alpha", docker_url="ssh://root@10.0.0.9")
    world.run_session(world.create_session())
    status, problem = operator("DELETE", f"{HOSTS}/alpha")
    assert (status, problem["code"], problem["sessions"]) == (409, "host_in_use", 1)
    status, answer = operator("DELETE", f"{HOSTS}/alpha?force=true")
    assert (status, answer) == (202, {"name": "alpha", "drain": "leave"})
    assert world.store.hosts.get(host.id).drain is Drain.LEAVE


def test_this_machines_own_engine_is_not_removed(world: World, operator: Api) -> None:
    world.add_host(name="local")
    status, problem = operator("DELETE", f"{HOSTS}/local?force=true")
    assert (status, problem["code"]) == (409, "host_is_local")


# Hosts in other endpoints


def test_the_pool_says_when_it_can_not_keep_its_reserve(world: World, operator: Api) -> None:
    world.add_host(name="alpha", slots=3)
    _, pool = operator("GET", "/api/admin/pool")
    assert (pool["free_slots"], pool["free_slots_wanted"], pool["free_slots_short"]) == (3, 2, 0)
    for _ in range(2):
        world.add_warm_sandbox()
    _, pool = operator("GET", "/api/admin/pool")
    assert (pool["free_slots"], pool["free_slots_short"], pool["warm"]) == (1, 1, 2)
    assert pool["hosts"][0]["name"] == "alpha"


def test_a_session_is_shown_with_the_name_of_its_host(world: World, operator: Api) -> None:
    host = world.add_host(name="alpha")
    ready = world.run_session(world.create_session())
    assert operator("GET", f"/api/admin/sessions/{ready.id}")[1]["host"] == "alpha"
    assert operator("GET", "/api/admin/sessions")[1]["sessions"][0]["host"] == "alpha"
    world.lose_host(host)
    assert operator("GET", f"/api/admin/sessions/{ready.id}")[1]["sandbox"]["state"] == "broken"


def test_metrics_count_slots_states_and_links(world: World, operator: Api) -> None:
    world.add_host(name="alpha", slots=1)
    world.add_host(name="beta", state=HostState.LOST)
    gauges = LinkGauges(
        host="alpha",
        up=True,
        docker=True,
        channels=3,
        rtt_s=None,
        reconnects=1,
        refusals={"connections": 7},
    )
    world.board.post([gauges])
    lines = operator.text("/metrics").splitlines()
    for line in (
        'spawn_host_state{host="alpha",state="up"} 1.0',
        'spawn_host_state{host="beta",state="lost"} 1.0',
        'spawn_host_state{host="beta",state="up"} 0.0',
        'spawn_host_slots{host="alpha",kind="total"} 1.0',
        "spawn_free_slots 1.0",
        "spawn_free_slots_short 1.0",
        'spawn_link_up{host="alpha"} 1.0',
        'spawn_link_channels{host="alpha"} 3.0',
        'spawn_link_reconnects{host="alpha"} 1.0',
        'spawn_link_refusals_total{host="alpha",reason="connections"} 7.0',
    ):
        assert line in lines
    assert not any(line.startswith("spawn_link_rtt_seconds{") for line in lines)


def test_metrics_say_who_has_the_cpu_limit_of_a_start(world: World, operator: Api) -> None:
    world.add_host(name="alpha", cpus=2, changes_cpus=True)
    world.add_host(name="beta", changes_cpus=False, state=HostState.LOST)
    world.add_host(name="gamma", state=HostState.LOST)
    world.run_session(world.create_session())
    world.add_warm_sandbox()
    lines = operator.text("/metrics").splitlines()
    for line in (
        'spawn_sandboxes{state="claimed"} 1.0',
        'spawn_sandboxes_raised{state="claimed"} 1.0',
        'spawn_sandboxes_raised{state="warm"} 1.0',
        "spawn_cpu_limits_late 1.0",
        'spawn_host_changes_cpus{host="alpha"} 1.0',
        'spawn_host_changes_cpus{host="beta"} 0.0',
    ):
        assert line in lines
    assert 'spawn_host_changes_cpus{host="gamma"} 0.0' not in lines


def test_a_session_asks_for_its_host_by_region_and_labels(world: World, user: Api) -> None:
    world.add_host(region="eu", labels={"gpu": "yes"})
    body = {"template": "kanban", "region": "eu", "labels": {"gpu": "yes"}}
    status, created = user("POST", "/api/sessions", body)
    assert status == 202
    session = world.store.sessions.get(created["session_id"])
    assert (session.wish.region, dict(session.wish.labels)) == ("eu", {"gpu": "yes"})
    status, problem = user("POST", "/api/sessions", {**body, "region": "us"})
    assert (status, problem["code"], problem["regions"]) == (409, "placement_unknown", ["eu"])
