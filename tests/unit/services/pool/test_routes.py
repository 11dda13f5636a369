"""Publishing: live when confirmed, freed only after a confirmed withdrawal."""

from __future__ import annotations

import pytest

from orchestrator.domain import errors
from orchestrator.domain.pool.sandbox import SandboxState
from orchestrator.domain.sessions.session import Phase
from orchestrator.services.agents import inbox
from orchestrator.services.pool import claims, reconcile, routes
from tests.fakes import samples
from tests.fakes.proxy import ProxyThatIsAway, ProxyThatIsSlow, ProxyThatRejects
from tests.fakes.samples import NOW
from tests.unit.services.world import World


def test_a_new_sandbox_becomes_live_with_the_next_publication(world: World) -> None:
    world.host()
    box = world.store.sandboxes.place(samples.new_sandbox(), NOW)
    assert world.store.sandboxes.unsettled_routes()
    assert world.publish() == routes.Published(routes=1, changed=1)
    assert world.proxy.slugs == {box.slug}
    assert world.box(box.id).routed
    assert not world.store.sandboxes.unsettled_routes()
    assert world.publish() == routes.Published(routes=1, changed=0)


def test_a_warm_sandbox_that_only_missed_its_route_wakes_the_pool(world: World) -> None:
    world.host()
    box = world.store.sandboxes.place(samples.new_sandbox(), NOW)
    inbox.visit(world.deps, box.id, "")
    assert world.box(box.id).state is SandboxState.CREATING
    world.publish()
    assert world.box(box.id).state is SandboxState.WARM
    assert world.events.sent[-1] == "pool"


def test_a_session_that_waits_for_its_route_is_nudged(world: World) -> None:
    world.host()
    session = world.ask()
    world.converge(session)
    world.queue.nudges.clear()
    world.publish()
    assert world.queue.nudged == [session.id]


@pytest.mark.parametrize(
    ("proxy", "error"),
    [
        (ProxyThatRejects(), errors.ProxyRejected),
        (ProxyThatIsAway(), errors.ProxyUnavailable),
    ],
    ids=["rejects", "away"],
)
def test_without_a_confirmation_nothing_is_live_and_nothing_is_withdrawn(
    world: World, proxy: ProxyThatRejects, error: type[Exception]
) -> None:
    world.host()
    old, new = world.warm(), world.store.sandboxes.place(samples.new_sandbox(), NOW)
    claims.retire(world.deps, old, "a test said so")
    world.proxy = proxy
    with pytest.raises(error):
        world.publish()
    assert not world.box(new.id).routed
    assert world.box(old.id).routed
    assert world.queue.nudged == []


def test_a_stopping_sandbox_is_withdrawn_before_it_may_be_removed(world: World) -> None:
    world.host()
    box = world.warm()
    claims.retire(world.deps, box, "a test said so")
    assert world.proxy.slugs == {box.slug}
    world.publish()
    assert world.proxy.slugs == set()
    assert not world.box(box.id).routed


def test_a_sandbox_that_stops_during_a_publication_is_only_free_after_the_next(
    world: World,
) -> None:
    """The table under way still holds its route: its port must not go to anybody else yet."""
    world.host()
    box = world.warm()
    world.proxy = ProxyThatIsSlow(lambda: claims.retire(world.deps, world.box(box.id), "now"))
    world.publish()
    assert box.slug in world.proxy.slugs
    assert world.box(box.id).routed
    reconcile.clear(world.deps)
    assert world.box(box.id).state is SandboxState.STOPPING
    assert box.id in world.engine.found

    assert world.store.sandboxes.unsettled_routes()
    world.publish()
    assert box.slug not in world.proxy.slugs
    reconcile.clear(world.deps)
    assert world.box(box.id).state is SandboxState.GONE


def test_a_new_sandbox_that_stops_during_its_first_publication_is_withdrawn_too(
    world: World,
) -> None:
    world.host()
    box = world.store.sandboxes.place(samples.new_sandbox(), NOW)
    world.proxy = ProxyThatIsSlow(lambda: claims.retire(world.deps, world.box(box.id), "now"))
    world.publish()
    assert box.slug in world.proxy.slugs
    assert world.box(box.id).routed, "nobody would withdraw what is not known to be published"
    with pytest.raises(errors.Conflict):
        claims.remove(world.deps, world.box(box.id))
    world.publish()
    claims.remove(world.deps, world.box(box.id))


def test_a_slug_that_changes_during_a_publication_is_not_live_yet(world: World) -> None:
    """Recovery gives a warm sandbox the session's slug while a table with the old one is made."""
    world.host()
    ready = world.run(world.ask())
    box = world.sandbox_of(ready)
    world.engine.crash(box.id)
    world.reconcile(world.host_of(ready))
    world.converge(ready)
    world.publish()
    spare = world.warm()
    world.proxy = ProxyThatIsSlow(lambda: void(world.converge(ready)))
    world.publish()
    assert world.sandbox_of(ready).id == spare.id
    assert world.proxy.slugs == {spare.slug}
    assert not world.box(spare.id).routed
    world.report(ready, Phase.READY)
    assert world.converge(ready).steps == ("Rest",)

    world.publish()
    assert world.proxy.slugs == {ready.slug}
    assert world.box(spare.id).routed


def void(_: object) -> None:
    """For callbacks that return nothing."""


def test_broken_sandboxes_are_withdrawn_with_the_next_publication(world: World) -> None:
    host = world.host()
    box = world.warm()
    world.engine.crash(box.id)
    world.reconcile(host)
    world.publish()
    assert box.slug not in world.proxy.slugs


def test_a_port_that_was_given_back_is_the_last_to_be_used_again(world: World) -> None:
    world.host()
    first = world.warm()
    claims.retire(world.deps, first, "a test said so")
    world.publish()
    claims.remove(world.deps, world.box(first.id))
    assert world.warm().port == first.port + 1
