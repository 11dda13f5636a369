"""Only the latest leader publishes. One that was stopped meanwhile can't bring its table back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from orchestrator.adapters.proxy.nginx import NginxProxy
from orchestrator.domain import errors
from orchestrator.domain.pool.routes import build_table
from tests.fakes.terms import TermThatEnds
from tests.integration.proxy.world import World, respond_with, routes, running_world


@pytest.fixture(name="world")
def _world() -> Iterator[World]:
    with running_world() as world:
        yield world


def test_the_table_of_a_later_leader_stays(world: World) -> None:
    earlier = NginxProxy(world.settings, TermThatEnds(1))
    later = NginxProxy(world.settings, TermThatEnds(2))
    slug, app = world.publish_app(respond_with("app"))
    earlier.publish(build_table(()))
    later.publish(routes({slug: app}))
    with pytest.raises(errors.TermOver, match="term 2 publishes"):
        earlier.publish(build_table(()))
    assert later.published() == routes({slug: app}).digest
    assert world.ask(world.host(slug)).body == "app"
    later.publish(build_table(()))
    assert later.published() == build_table(()).digest


def test_a_term_that_ends_during_a_publish_changes_nothing_any_more(world: World) -> None:
    slug, app = world.publish_app(respond_with("app"))
    term = TermThatEnds(1)
    term.checks_left = 1
    with pytest.raises(errors.TermOver):
        NginxProxy(world.settings, term).publish(build_table(()))
    assert world.proxy.published() == routes({slug: app}).digest
    assert world.ask(world.host(slug)).body == "app"
