"""Routes are live once confirmed. A port is free only after a confirmed withdrawal."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.domain import errors
from orchestrator.domain.pool.host import Drain, HostState, Wish
from orchestrator.domain.pool.sandbox import SandboxState
from orchestrator.domain.sessions.session import Phase
from orchestrator.services.agents import inbox
from orchestrator.services.pool import claims
from tests.fakes import samples
from tests.fakes.proxy import ProxyThatIsAway, ProxyThatIsSlow, ProxyThatRejects
from tests.fakes.samples import NOW
from tests.unit.services.world import World


def test_a_new_sandbox_becomes_live_with_the_next_publication(world: World) -> None:
    world.add_host()
    sandbox = world.store.sandboxes.place(samples.new_sandbox(), NOW)
    assert world.store.sandboxes.has_unpublished_routes()
    published = world.publish()
    assert (published.routes, published.changed) == (1, 1)
    assert published.digest == world.proxy.published()
    assert world.proxy.slugs == {sandbox.slug}
    assert world.sandbox(sandbox.id).routed
    assert not world.store.sandboxes.has_unpublished_routes()
    assert world.publish() == replace(published, changed=0)


def test_a_sandbox_that_gets_warm_by_its_route_wakes_the_pool(world: World) -> None:
    world.add_host()
    sandbox = world.store.sandboxes.place(samples.new_sandbox(), NOW)
    inbox.visit(world.deps, sandbox.id, "")
    assert world.sandbox(sandbox.id).state is SandboxState.CREATING
    world.publish()
    assert world.sandbox(sandbox.id).state is SandboxState.WARM
    assert world.events.sent[-1] == "pool"


def test_a_session_that_waits_for_its_route_is_nudged(world: World) -> None:
    world.add_host()
    session = world.create_session()
    world.converge(session)
    world.start_placed()
    inbox.visit(world.deps, world.sandbox_of(session).id, "")
    world.report(session, Phase.READY)
    world.queue.nudges.clear()
    world.publish()
    assert world.queue.nudged == [session.id]


def test_a_session_whose_app_is_not_up_yet_is_not_nudged_by_its_route(world: World) -> None:
    world.add_host()
    session = world.create_session()
    world.converge(session)
    world.queue.nudges.clear()
    world.publish()
    assert world.sandbox_of(session).routed
    assert world.queue.nudged == []


@pytest.mark.parametrize(
    ("proxy", "error"),
    [
        (ProxyThatRejects(), errors.ProxyRejected),
        (ProxyThatIsAway(), errors.ProxyUnavailable),
    ],
    ids=["rejects", "away"],
)
def test_without_a_confirmation_no_route_is_live_or_withdrawn(
    world: World, proxy: ProxyThatRejects, error: type[Exception]
) -> None:
    world.add_host()
    old, new = world.add_warm_sandbox(), world.store.sandboxes.place(samples.new_sandbox(), NOW)
    claims.retire(world.deps, old, "a test said so")
    world.proxy = proxy
    with pytest.raises(error):
        world.publish()
    assert not world.sandbox(new.id).routed
    assert world.sandbox(old.id).routed
    assert world.queue.nudged == []


def test_a_stopping_sandbox_is_withdrawn_before_it_may_be_removed(world: World) -> None:
    world.add_host()
    sandbox = world.add_warm_sandbox()
    claims.retire(world.deps, sandbox, "a test said so")
    assert world.proxy.slugs == {sandbox.slug}
    world.publish()
    assert world.proxy.slugs == set()
    assert not world.sandbox(sandbox.id).routed


def test_a_sandbox_that_stops_during_a_publication_is_only_free_after_the_next(
    world: World,
) -> None:
    """The table that is being published still has its route, so its port must stay reserved."""
    world.add_host()
    sandbox = world.add_warm_sandbox()
    world.proxy = ProxyThatIsSlow(
        lambda: claims.retire(world.deps, world.sandbox(sandbox.id), "now")
    )
    world.publish()
    assert sandbox.slug in world.proxy.slugs
    assert world.sandbox(sandbox.id).routed
    world.clear()
    assert world.sandbox(sandbox.id).state is SandboxState.STOPPING
    assert sandbox.id in world.engine.containers_by_sandbox

    assert world.store.sandboxes.has_unpublished_routes()
    world.publish()
    assert sandbox.slug not in world.proxy.slugs
    world.clear()
    assert world.sandbox(sandbox.id).state is SandboxState.GONE


def test_a_new_sandbox_that_stops_during_its_first_publication_is_withdrawn_too(
    world: World,
) -> None:
    world.add_host()
    sandbox = world.store.sandboxes.place(samples.new_sandbox(), NOW)
    world.proxy = ProxyThatIsSlow(
        lambda: claims.retire(world.deps, world.sandbox(sandbox.id), "now")
    )
    world.publish()
    assert sandbox.slug in world.proxy.slugs
    assert world.sandbox(sandbox.id).routed, (
        "its route has to be withdrawn, so it must count as published"
    )
    with pytest.raises(errors.Conflict):
        claims.remove(world.deps, world.sandbox(sandbox.id))
    world.publish()
    claims.remove(world.deps, world.sandbox(sandbox.id))


def test_a_slug_that_changes_during_a_publication_is_not_live_yet(world: World) -> None:
    """Recovery gives a warm sandbox the session's slug while a table with its old slug is made."""
    world.add_host()
    ready = world.run_session(world.create_session())
    sandbox = world.sandbox_of(ready)
    world.engine.crash(sandbox.id)
    world.reconcile(world.host_of(ready))
    spare = world.add_warm_sandbox()
    world.proxy = ProxyThatIsSlow(lambda: void(world.converge(ready)))
    world.publish()
    assert world.sandbox_of(ready).id == spare.id
    assert world.proxy.slugs == {spare.slug}
    assert not world.sandbox(spare.id).routed
    world.report(ready, Phase.READY)
    assert world.converge(ready).steps == ("Wait",)

    world.publish()
    assert world.proxy.slugs == {ready.slug}
    assert world.sandbox(spare.id).routed


def void(_: object) -> None:
    """For callbacks that return nothing."""


def test_broken_sandboxes_are_withdrawn_with_the_next_publication(world: World) -> None:
    host = world.add_host()
    sandbox = world.add_warm_sandbox()
    world.engine.crash(sandbox.id)
    world.reconcile(host)
    world.publish()
    assert sandbox.slug not in world.proxy.slugs


def test_a_port_that_was_given_back_is_the_last_to_be_used_again(world: World) -> None:
    world.add_host()
    first = world.add_warm_sandbox()
    claims.retire(world.deps, first, "a test said so")
    world.publish()
    claims.remove(world.deps, world.sandbox(first.id))
    assert world.add_warm_sandbox().port == first.port + 1


def test_an_ambiguous_route_takes_only_its_own_hosts_out(world: World) -> None:
    shared = "10.0.0.9"
    leaving = world.add_host(slots=1, publish_address=shared, drain=Drain.LEAVE, state=HostState.UP)
    good = world.add_host(slots=1, region="good")
    world.store.hosts.change(leaving.id, lambda host: replace(host, drain=Drain.NONE))
    first = world.store.sandboxes.place(samples.new_sandbox(wish=Wish(region="")), NOW)
    second = world.store.sandboxes.place(samples.new_sandbox(), NOW)
    assert {first.host_id, second.host_id} == {leaving.id, good.id}
    world.store.hosts.change(leaving.id, lambda host: replace(host, drain=Drain.LEAVE))
    bad = world.add_host(slots=1, publish_address=shared, labels={"only": "this"})
    third = world.store.sandboxes.place(samples.new_sandbox(wish=Wish(labels=bad.labels)), NOW)
    served = first if first.host_id == good.id else second

    assert world.publish().routes == 1
    assert world.proxy.slugs == {served.slug}
    assert not world.sandbox(third.id).routed
    states = {host.id: host.state for host in world.store.hosts.list()}
    assert states == {
        leaving.id: HostState.SUSPECT,
        bad.id: HostState.SUSPECT,
        good.id: HostState.UP,
    }
