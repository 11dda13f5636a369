"""ports.Sandboxes: claims, visits and routes. Placements are in test_placements.py."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC
from typing import Any

import pytest

from orchestrator.adapters.sql_store import SqlStore
from orchestrator.domain import errors, ids
from orchestrator.domain.pool.host import Drain, HostState
from orchestrator.domain.pool.published_ports import PublishedPort
from orchestrator.domain.pool.routes import Route
from orchestrator.domain.pool.sandbox import SandboxState
from orchestrator.domain.pool.silence import AgentGroup
from orchestrator.domain.sessions.session import SessionState
from tests.contract.store.steps import add_session, provisioning, retire, walk, warm_up
from tests.fakes import samples
from tests.fakes.samples import NOW, USER, later


@pytest.fixture
def host_id(store: SqlStore) -> ids.HostId:
    host = samples.host(slots=6, publish_address="10.0.0.7")
    store.hosts.put(host)
    return host.id


def test_the_oldest_warm_sandbox_is_claimed_for_a_session(
    store: SqlStore, host_id: ids.HostId
) -> None:
    warm_up(store, later(2))
    oldest = warm_up(store, later(1))
    session = add_session(store)

    claim = store.sandboxes.claim(provisioning(session), later(5))

    assert claim is not None
    owner, claimed = claim
    assert claimed == replace(
        oldest, state=SandboxState.CLAIMED, session_id=session.id, state_since=later(5)
    )
    assert owner == replace(
        provisioning(session), sandbox_id=oldest.id, slug=oldest.slug, revision=1
    )
    assert store.sandboxes.get(oldest.id) == claimed
    assert store.sessions.get(session.id) == owner


def test_a_claim_without_a_warm_sandbox_changes_nothing(
    store: SqlStore, host_id: ids.HostId
) -> None:
    store.sandboxes.place(samples.new_sandbox(), NOW)  # CREATING
    unrouted = store.sandboxes.place(samples.new_sandbox(), NOW)
    store.sandboxes.agent_seen(unrouted.id, NOW)
    session = add_session(store)
    assert store.sandboxes.claim(provisioning(session), NOW) is None
    assert store.sessions.get(session.id) == session


@pytest.mark.parametrize(
    "change",
    [
        {"cordoned": True},
        {"drain": Drain.WAIT},
        {"drain": Drain.MOVE},
        {"state": HostState.SUSPECT},
        {"state": HostState.LOST},
    ],
    ids=str,
)
def test_nothing_is_claimed_on_a_host_that_can_not_serve(
    store: SqlStore, host_id: ids.HostId, change: dict[str, object]
) -> None:
    warm = warm_up(store)
    host = store.hosts.get(host_id)
    store.hosts.put(replace(host, **change))  # type: ignore[arg-type] # fields by name
    session = add_session(store)
    assert store.sandboxes.claim(provisioning(session), NOW) is None
    store.hosts.put(replace(host, shortage="its disk is full"))  # its warm sandboxes work
    claim = store.sandboxes.claim(provisioning(session), NOW)
    assert claim is not None
    assert claim[1].id == warm.id


def test_no_session_claims_a_sandbox_on_a_host_that_it_lost_one_on(
    store: SqlStore, host_id: ids.HostId
) -> None:
    warm = warm_up(store)
    session = add_session(store, lost_on={host_id: NOW})
    assert store.sandboxes.claim(provisioning(session), NOW) is None
    claim = store.sandboxes.claim(provisioning(add_session(store)), NOW)
    assert claim is not None
    assert claim[1].id == warm.id


def test_what_its_host_ended_is_written_with_the_sandbox(
    store: SqlStore, host_id: ids.HostId
) -> None:
    warm = warm_up(store)
    broken = warm.transition(SandboxState.BROKEN, later(1), "its container is gone")
    store.sandboxes.save(replace(broken, ended_by_host=True), expected=SandboxState.WARM)
    assert store.sandboxes.get(warm.id).ended_by_host


def test_a_stale_claim_leaves_the_sandbox_to_the_next_one(
    store: SqlStore, host_id: ids.HostId
) -> None:
    warm = warm_up(store)
    session = add_session(store)
    store.sessions.save(replace(session, attempt=2))
    with pytest.raises(errors.StaleWrite):
        store.sandboxes.claim(provisioning(session), NOW)
    with pytest.raises(errors.NotFound):
        store.sandboxes.claim(provisioning(samples.session()), NOW)
    assert store.sandboxes.get(warm.id) == warm
    assert store.sandboxes.claim(provisioning(add_session(store)), NOW) is not None


def test_a_recovering_session_gives_its_slug_to_its_new_sandbox(
    store: SqlStore, host_id: ids.HostId
) -> None:
    warm = warm_up(store)
    session = add_session(store, slug=ids.new_slug())
    claim = store.sandboxes.claim(provisioning(session), NOW)
    assert claim is not None
    owner, claimed = claim
    assert owner.slug == claimed.slug == session.slug
    assert not claimed.routed, "its new route isn't live yet"
    assert store.sandboxes.get(warm.id) == claimed
    assert store.sandboxes.has_unpublished_routes()


def test_a_save_needs_the_state_that_was_expected(store: SqlStore, host_id: ids.HostId) -> None:
    warm = warm_up(store)
    broken = warm.transition(SandboxState.BROKEN, later(3), "its container is gone")
    assert store.sandboxes.save(broken, SandboxState.WARM) == broken
    assert store.sandboxes.get(warm.id) == broken
    with pytest.raises(errors.StaleWrite):
        store.sandboxes.save(replace(warm, reason="late"), SandboxState.WARM)
    with pytest.raises(errors.StaleWrite):
        store.sandboxes.save(samples.sandbox(), SandboxState.WARM)
    assert store.sandboxes.get(warm.id) == broken


def test_a_save_keeps_the_stored_route_and_container(store: SqlStore, host_id: ids.HostId) -> None:
    read_early = store.sandboxes.place(samples.new_sandbox(), NOW)
    store.sandboxes.set_container(read_early.id, "c0ffee")
    store.sandboxes.mark_routes(samples.routes_of(read_early), [], NOW)
    broken = read_early.transition(SandboxState.BROKEN, later(1), "stuck")
    saved = store.sandboxes.save(broken, SandboxState.CREATING)
    assert saved == replace(broken, container_id="c0ffee", routed=True)
    assert store.sandboxes.get(saved.id) == saved


def test_a_stopping_sandbox_counts_as_routed_until_its_withdrawal_is_confirmed(
    store: SqlStore, host_id: ids.HostId
) -> None:
    placed = store.sandboxes.place(samples.new_sandbox(), NOW)
    assert not placed.routed
    stopping = walk(store, placed, SandboxState.STOPPING)
    assert stopping.routed
    assert store.sandboxes.has_unpublished_routes()
    (withdrawn,) = store.sandboxes.mark_routes({}, [placed.id], NOW)
    assert withdrawn == replace(stopping, routed=False)
    assert not store.sandboxes.has_unpublished_routes()


def test_a_sandbox_that_its_session_abandons_gives_up_the_slug_and_keeps_its_port(
    store: SqlStore, host_id: ids.HostId
) -> None:
    warm_up(store)
    claim = store.sandboxes.claim(provisioning(add_session(store)), NOW)
    assert claim is not None
    session, claimed = claim
    stopping = claimed.transition(SandboxState.STOPPING, NOW, "it was lost")
    ending = store.sandboxes.save(stopping, expected=SandboxState.CLAIMED)
    assert ending.slug == claimed.slug, "its session still has it"
    abandoned = store.sandboxes.save(
        replace(ending, session_id=None), expected=SandboxState.STOPPING
    )
    assert abandoned.slug != claimed.slug
    assert (abandoned.port, abandoned.routed) == (claimed.port, True)

    queued = store.sessions.save(session.transition(SessionState.QUEUED, NOW))
    new = samples.new_sandbox(session_id=session.id, slug=claimed.slug)
    placed = store.sandboxes.place_for(provisioning(queued), new, NOW)
    assert placed.slug == claimed.slug
    assert placed.port != claimed.port


def test_sandboxes_without_a_container_are_unstarted_until_they_have_one(
    store: SqlStore, host_id: ids.HostId
) -> None:
    second = store.sandboxes.place(samples.new_sandbox(), later(2))
    first = store.sandboxes.place(samples.new_sandbox(), later(1))
    stopping = store.sandboxes.place(samples.new_sandbox(), NOW)
    retire(store, stopping)
    assert [sandbox.id for sandbox in store.sandboxes.unstarted()] == [first.id, second.id]
    store.sandboxes.set_container(first.id, "c" * 64)
    assert [sandbox.id for sandbox in store.sandboxes.unstarted()] == [second.id]


def test_the_container_id_is_recorded_in_any_state(store: SqlStore, host_id: ids.HostId) -> None:
    placed = store.sandboxes.place(samples.new_sandbox(), NOW)
    stopping = walk(store, placed, SandboxState.STOPPING)
    store.sandboxes.set_container(placed.id, "late")
    assert store.sandboxes.get(placed.id) == replace(stopping, container_id="late")


def test_a_sandbox_is_warm_when_its_agent_has_visited_and_its_route_is_live(
    store: SqlStore, host_id: ids.HostId
) -> None:
    first, second = (store.sandboxes.place(samples.new_sandbox(), NOW) for _ in range(2))
    visited = store.sandboxes.agent_seen(first.id, later(1))
    assert visited == replace(first, agent_seen_at=later(1))
    (warm,) = store.sandboxes.mark_routes(samples.routes_of(first), [], later(2))
    assert (warm.state, warm.state_since, warm.routed) == (SandboxState.WARM, later(2), True)

    (routed,) = store.sandboxes.mark_routes(samples.routes_of(second), [], later(1))
    assert routed == replace(second, routed=True)
    warm = store.sandboxes.agent_seen(second.id, later(3))
    assert (warm.state, warm.state_since) == (SandboxState.WARM, later(3))
    assert store.sandboxes.get(second.id) == warm


def test_a_sandbox_made_for_a_session_is_claimed_by_its_agents_first_visit(
    store: SqlStore, host_id: ids.HostId
) -> None:
    session = add_session(store)
    placed = store.sandboxes.place(samples.new_sandbox(session_id=session.id), NOW)
    assert store.sandboxes.agent_seen(placed.id, NOW).state is SandboxState.CLAIMED


def test_a_visit_soon_after_the_last_is_not_written(store: SqlStore, host_id: ids.HostId) -> None:
    warm = warm_up(store)
    assert store.sandboxes.agent_seen(warm.id, later(9)) == warm
    assert store.sandboxes.get(warm.id).agent_seen_at == NOW
    store.sandboxes.agent_seen(warm.id, later(10))
    seen_at = store.sandboxes.get(warm.id).agent_seen_at
    assert seen_at == later(10)
    assert seen_at is not None
    assert seen_at.tzinfo is UTC


def test_unknown_sandboxes_are_not_found(store: SqlStore) -> None:
    with pytest.raises(errors.NotFound):
        store.sandboxes.get(ids.new_sandbox_id())
    with pytest.raises(errors.NotFound):
        store.sandboxes.agent_seen(ids.new_sandbox_id(), NOW)


def test_a_route_is_marked_only_where_the_state_agrees(
    store: SqlStore, host_id: ids.HostId
) -> None:
    warm = warm_up(store)
    stopping = walk(store, warm_up(store), SandboxState.STOPPING)
    other = store.sandboxes.place(samples.new_sandbox(), NOW)
    assert store.sandboxes.mark_routes(samples.routes_of(stopping), [warm.id], NOW) == []
    assert store.sandboxes.mark_routes(samples.routes_of(warm), [], NOW) == [], (
        "it is routed already"
    )
    assert store.sandboxes.mark_routes({}, [], NOW) == []
    changed = store.sandboxes.mark_routes(samples.routes_of(other), [stopping.id], NOW)
    assert {sandbox.id: sandbox.routed for sandbox in changed} == {
        other.id: True,
        stopping.id: False,
    }
    assert store.sandboxes.get(warm.id) == warm


def test_routes_are_those_of_routed_states_at_their_hosts_address(
    store: SqlStore, host_id: ids.HostId
) -> None:
    assert store.sandboxes.routes().routes == {}
    assert not store.sandboxes.has_unpublished_routes()
    retire(store, warm_up(store))
    walk(store, warm_up(store), SandboxState.BROKEN)
    warm = warm_up(store)
    creating = store.sandboxes.place(samples.new_sandbox(), NOW)
    session = add_session(store, slug=ids.new_slug(), state=SessionState.QUEUED)
    claim = store.sandboxes.claim(provisioning(session), NOW)
    assert claim is not None
    _, claimed = claim
    assert claimed.id == warm.id
    assert store.sandboxes.routes().routes == {
        creating.id: Route(slug=creating.slug, address="10.0.0.7", port=creating.port),
        warm.id: Route(slug=claimed.slug, address="10.0.0.7", port=warm.port),
    }
    assert store.sandboxes.has_unpublished_routes()


def test_routes_say_which_of_them_are_not_published_yet(
    store: SqlStore, host_id: ids.HostId
) -> None:
    published, retired, broken = (warm_up(store) for _ in range(3))
    walk(store, retired, SandboxState.STOPPING)
    walk(store, broken, SandboxState.BROKEN)
    retire(store, warm_up(store))
    creating = store.sandboxes.place(samples.new_sandbox(), NOW)
    stored = store.sandboxes.routes()
    assert set(stored.routes) == {published.id, creating.id}
    assert list(stored.unconfirmed) == [creating.id]
    assert set(stored.withdrawn) == {retired.id, broken.id}
    store.sandboxes.mark_routes(stored.routes, stored.withdrawn, NOW)
    settled = store.sandboxes.routes()
    assert (settled.routes, settled.unconfirmed, settled.withdrawn) == (stored.routes, [], [])


def test_the_list_has_gone_sandboxes_only_if_asked(store: SqlStore, host_id: ids.HostId) -> None:
    gone = retire(store, warm_up(store, later(-9)))
    young, old = warm_up(store, later(-1)), warm_up(store, later(-2))
    elsewhere = samples.host()
    store.hosts.put(replace(store.hosts.get(host_id), cordoned=True))
    store.hosts.put(elsewhere)
    creating = store.sandboxes.place(samples.new_sandbox(), NOW)
    assert store.sandboxes.list() == [old, young, creating]
    assert store.sandboxes.list(host_id=elsewhere.id) == [creating]
    assert store.sandboxes.list(states=[SandboxState.WARM]) == [old, young]
    assert store.sandboxes.list(states=list(SandboxState)) == [gone, old, young, creating]
    assert store.sandboxes.list(host_id=host_id, states=[SandboxState.CREATING]) == []


@pytest.mark.parametrize("change", [{"slug": ids.new_slug()}, {"port": 21009}])
def test_a_route_is_not_marked_if_another_slug_or_port_was_published(
    store: SqlStore, host_id: ids.HostId, change: dict[str, Any]
) -> None:
    placed = store.sandboxes.place(samples.new_sandbox(), NOW)
    published = samples.routes_of(replace(placed, **change))
    assert store.sandboxes.mark_routes(published, [], NOW) == []
    assert store.sandboxes.has_unpublished_routes()


def test_agents_are_counted_by_host_and_owner(store: SqlStore, host_id: ids.HostId) -> None:
    for _ in range(2):
        warm_up(store, NOW)
        session = add_session(store, slug=ids.new_slug(), state=SessionState.QUEUED)
        assert store.sandboxes.claim(provisioning(session), NOW) is not None
    warm = warm_up(store, later(50))
    store.sandboxes.place(samples.new_sandbox(), NOW)  # CREATING: its agent hasn't called yet
    retire(store, warm_up(store, NOW))
    groups = store.sandboxes.agent_groups(later(10))
    assert sorted(groups, key=lambda group: group.agents) == [
        AgentGroup(host_id=host_id, owner=warm.id, agents=1, overdue=0),
        AgentGroup(host_id=host_id, owner=USER, agents=2, overdue=2),
    ]
    assert sum(group.overdue for group in store.sandboxes.agent_groups(NOW)) == 0


def test_published_ports_are_those_of_warm_and_claimed_sandboxes(
    store: SqlStore, host_id: ids.HostId
) -> None:
    warm_up(store, NOW)
    session = add_session(store, slug=ids.new_slug(), state=SessionState.QUEUED)
    assert store.sandboxes.claim(provisioning(session), NOW) is not None
    warm = warm_up(store, later(50))
    store.sandboxes.place(samples.new_sandbox(), NOW)  # CREATING: nobody may visit it yet
    retire(store, warm_up(store, NOW))
    ports = {port.is_warm: port for port in store.sandboxes.published_ports()}
    assert ports[True] == PublishedPort(
        sandbox_id=warm.id,
        host_id=host_id,
        owner=warm.id,
        is_warm=True,
        address="10.0.0.7",
        port=warm.port,
        up_since=store.hosts.get(host_id).state_since,
    )
    assert (len(ports), ports[False].owner) == (2, USER)


def test_ports_of_a_suspect_host_are_published_and_those_of_a_lost_one_are_not(
    store: SqlStore, host_id: ids.HostId
) -> None:
    warm_up(store, NOW)
    store.hosts.change(host_id, lambda host: host.transition(HostState.SUSPECT, NOW, "no answer"))
    assert [port.up_since for port in store.sandboxes.published_ports()] == [None]
    store.hosts.lose(host_id, NOW, "no answer for 15 s")
    assert store.sandboxes.published_ports() == []


def test_the_living_sandboxes_are_all_but_those_that_are_gone(
    store: SqlStore, host_id: ids.HostId
) -> None:
    retire(store, warm_up(store))
    stopping = walk(store, warm_up(store), SandboxState.STOPPING)
    creating = store.sandboxes.place(samples.new_sandbox(), NOW)
    assert store.pool.living([host_id]) == {stopping.id: host_id, creating.id: host_id}
    assert store.pool.living() == store.pool.living([host_id])
    assert store.pool.living([ids.new_host_id()]) == store.pool.living([]) == {}
