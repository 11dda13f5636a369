"""The publish loop, pass by pass: when it publishes, and what it reads and asks otherwise."""

from __future__ import annotations

import pytest

from orchestrator.domain import errors
from orchestrator.domain.pool.routes import RouteTable
from orchestrator.loops.passes import Publisher
from orchestrator.services.pool import claims
from tests.fakes import samples
from tests.fakes.proxy import ProxyInMemory, ProxyThatRejects
from tests.unit.loops.statements import count_statements
from tests.unit.services.world import World


class ProxyThatCounts(ProxyInMemory):
    """Counts what is asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.afresh: list[int] = []  # which publications looked at each route

    def publish(self, table: RouteTable, *, afresh: bool = False) -> None:
        if afresh:
            self.afresh.append(len(self.tables))
        super().publish(table, afresh=afresh)

    def published(self) -> str | None:
        self.asked += 1
        return super().published()


def test_the_publisher_publishes_at_start_even_if_nothing_changed(world: World) -> None:
    world.publish()  # an earlier daemon did
    publisher = Publisher(world.deps, world.proxy)
    assert publisher.publish() == ""
    assert len(world.proxy.tables) == 2
    assert publisher.publish() == ""
    assert len(world.proxy.tables) == 2


def test_the_publisher_publishes_routes_that_changed(world: World) -> None:
    publisher = Publisher(world.deps, world.proxy)
    publisher.publish()
    world.add_host()
    sandbox = world.store.sandboxes.place(samples.new_sandbox(), world.clock.now())
    assert publisher.publish() == "routes=1 changed=1"
    claims.retire(world.deps, world.sandbox(sandbox.id), "a test said so")
    assert publisher.publish() == "routes=0 changed=1"


def test_a_proxy_that_forgot_its_table_gets_it_again(world: World) -> None:
    world.add_host()
    sandbox = world.add_warm_sandbox()
    publisher = Publisher(world.deps, world.proxy)
    publisher.publish()
    world.proxy.forget()
    world.clock.advance(1)
    publisher.publish()
    assert world.proxy.slugs == {sandbox.slug}


def test_all_routes_are_read_only_now_and_then_while_proxy_and_store_tell_of_no_change(
    world: World,
) -> None:
    world.add_host()
    world.add_warm_sandbox()
    publisher = Publisher(world.deps, world.proxy)
    reads = count_statements(world, "JOIN hosts ON hosts.id = sandboxes.host_id")
    for _ in range(60):
        publisher.publish()
        world.clock.advance(1)
    assert len(reads) == 1 + 1, "at the start, and after 30 s"
    world.proxy.forget()
    publisher.publish()
    assert world.proxy.slugs, "what the proxy has lost, it gets at once"


def test_a_first_publication_that_is_rejected_is_tried_again(world: World) -> None:
    world.add_host()
    world.add_warm_sandbox()
    rejecting = ProxyThatRejects()
    publisher = Publisher(world.deps, rejecting)
    for _ in range(2):
        with pytest.raises(errors.ProxyRejected):
            publisher.publish()


def test_passes_that_events_cause_in_vain_read_once_and_do_not_ask_the_proxy(world: World) -> None:
    world.add_host()
    world.add_warm_sandbox()
    proxy = ProxyThatCounts()
    publisher = Publisher(world.deps, proxy)
    publisher.publish()
    reads = count_statements(world, "SELECT")
    for _ in range(10):
        world.clock.advance(0.1)
        publisher.publish()
    assert len(reads) == 10
    assert proxy.asked == 2, "twice a second"


def test_all_links_are_read_afresh_now_and_then_however_often_routes_change(world: World) -> None:
    world.add_host(slots=99)
    proxy = ProxyThatCounts()
    publisher = Publisher(world.deps, proxy)
    for _ in range(61):
        placed = world.store.sandboxes.place(samples.new_sandbox(), world.clock.now())
        publisher.publish()
        claims.retire(world.deps, placed, "a test said so")
        world.clock.advance(1)
    assert proxy.afresh == [0, 30, 60]
