"""What a pass does in a large pool: as much as there is to do, not as much as there are hosts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from orchestrator.domain.ids import HostId
from orchestrator.domain.pool.host import Drain, Host, HostState
from orchestrator.domain.pool.host_liveness import LinkState
from orchestrator.domain.pool.sandbox_diagnosis import Container
from orchestrator.domain.pool.silence import OVERDUE
from orchestrator.loops.engine_calls import EngineCalls
from orchestrator.loops.host_book import HostBook, Turns
from orchestrator.loops.host_passes import HostPasses
from orchestrator.loops.reconciler import Reconciler
from orchestrator.services.agents import inbox
from tests.fakes import samples
from tests.fakes.engine import EngineInMemory
from tests.fakes.fleet import FleetInMemory, ImagePushesInMemory
from tests.fakes.samples import NOW
from tests.fakes.threads import run_at_once
from tests.unit.loops.statements import count_statements
from tests.unit.services.world import World

HOSTS = 70
AWAY = LinkState(up=False, since=NOW, reason="no route to host")


class FleetThatCounts(FleetInMemory):
    """Records which hosts it was asked about."""

    def __init__(self, world: World) -> None:
        super().__init__(world.engines)
        self.asked: list[str] = []  # names of the hosts whose link was looked at
        self.compared: list[str] = []
        self.followed: list[int] = []  # how many hosts were passed on

    def set_hosts(self, hosts: Sequence[Host]) -> None:
        super().set_hosts(hosts)
        self.followed.append(len(hosts))

    def link_state(self, host: Host) -> LinkState | None:
        self.asked.append(host.name)
        return super().link_state(host)

    def containers(self, host: Host) -> Sequence[Container] | None:
        self.compared.append(host.name)
        return super().containers(host)


class Pool:
    """A pool of HOSTS hosts that are UP, after its first passes."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.fleet = world.fleet = FleetThatCounts(world)
        self.inventories: list[int] = []
        for number in range(HOSTS):
            host = world.add_host(
                name=f"host-{number:02}",
                publish_address=f"10.0.1.{number}",
                created_at=samples.later(-1000 + number),
            )
            world.engines.special[host.id] = EngineInMemory()
        book = HostBook(world.deps)
        self.passes = HostPasses(
            world.deps,
            self.fleet,
            ImagePushesInMemory(),
            lambda hosts: self.inventories.append(len(hosts)),
            spawn=run_at_once,
            book=book,
        )
        calls = EngineCalls(world.deps, run_at_once)
        self.reconciler = Reconciler(world.deps, self.fleet, calls, spawn=run_at_once, book=book)
        self.update_links()
        self.reconcile()

    def host(self, index: int) -> Host:
        return self.world.store.hosts.list()[index]

    def update_links(self) -> str:
        self.fleet.asked.clear()
        return self.passes.update_links()

    def reconcile(self) -> str:
        self.fleet.compared.clear()
        return self.reconciler.run()


@pytest.fixture
def pool(world: World) -> Pool:
    return Pool(world)


# Links


def test_a_links_pass_looks_at_a_few_hosts_in_turn_and_at_all_of_them_in_a_round(
    pool: Pool,
) -> None:
    seen = set()
    for _ in range(4):
        pool.update_links()
        assert len(set(pool.fleet.asked)) == 20
        seen |= set(pool.fleet.asked)
    assert len(seen) == HOSTS


def test_nothing_is_followed_or_written_anew_while_hosts_only_answer(pool: Pool) -> None:
    followed, inventories = len(pool.fleet.followed), len(pool.inventories)
    for _ in range(4):
        pool.world.clock.advance(30)  # so that `seen_at` is written
        pool.update_links()
    assert pool.host(0).seen_at is not None
    assert (len(pool.fleet.followed), len(pool.inventories)) == (followed, inventories)
    pool.world.add_host(name="new", created_at=NOW)
    pool.update_links()
    assert (pool.fleet.followed[-1], pool.inventories[-1]) == (HOSTS + 1, HOSTS + 1)


def test_a_link_that_changed_is_recorded_although_it_is_not_its_turn(pool: Pool) -> None:
    host = pool.host(50)
    pool.fleet.link_states[host.id] = AWAY
    pool.fleet.changed_links = {host.id}
    assert pool.update_links() == "host-50: up -> suspect no route to host"


def test_a_host_that_is_not_up_is_looked_at_in_every_pass(pool: Pool) -> None:
    host = pool.host(50)
    pool.fleet.link_states[host.id] = AWAY
    pool.fleet.changed_links = {host.id}
    pool.update_links()
    pool.world.clock.advance(15)
    assert pool.update_links() == "host-50: suspect -> lost no route to host"
    del pool.fleet.link_states[host.id]
    assert pool.update_links().startswith("host-50: lost -> joining")
    assert pool.host(50).state is HostState.UP, "it was admitted by the same pass"


def test_a_host_whose_link_is_unknown_is_looked_at_until_it_is_known(pool: Pool) -> None:
    host = pool.host(50)
    pool.fleet.link_states[host.id] = None
    pool.fleet.changed_links = {host.id}
    pool.update_links()
    pool.fleet.link_states[host.id] = AWAY  # its time to answer is over, and no event tells that
    assert pool.update_links() == "host-50: up -> suspect no route to host"


def test_a_drain_that_an_operator_orders_is_noticed_at_once(pool: Pool) -> None:
    pool.world.store.hosts.change(pool.host(50).id, lambda host: replace(host, drain=Drain.LEAVE))
    for _ in range(2):
        pool.passes.drain()
    assert len(pool.world.store.hosts.list()) == HOSTS - 1


# The book


def test_a_look_knows_what_another_process_changes_after_a_round_at_the_latest(
    world: World,
) -> None:
    hosts = [world.add_host(name=f"host-{number}") for number in range(50)]
    book, turns = HostBook(world.deps), Turns(passes=1, at_most=20)
    book.look()
    for host in hosts:
        world.store.hosts.change(host.id, lambda host: replace(host, cordoned=True))
    for _ in range(3):
        look = book.look(turns=turns)
        assert len(look.read) == 20
    assert all(host.cordoned for host in look.hosts.values())


def test_a_host_that_comes_to_rest_is_read_once_more(world: World) -> None:
    host = world.add_host(state=HostState.SUSPECT)
    book = HostBook(world.deps)
    book.look()
    world.store.hosts.change(host.id, lambda host: replace(host, state=HostState.UP))
    assert book.look().hosts[host.id].state is HostState.UP
    assert book.look().read == set()


def test_what_was_asked_for_and_has_left_is_no_host(world: World) -> None:
    kept, leaving = world.add_host(name="kept"), world.add_host(name="leaving")
    book = HostBook(world.deps)
    book.look()
    world.store.hosts.remove(leaving.id)
    look = book.look([leaving.id])
    assert list(look.hosts) == [kept.id]
    assert look.pick([leaving.id, kept.id]) == [kept]


# Reconciling


def test_a_reconcile_pass_compares_what_changed_and_a_few_in_turn(pool: Pool) -> None:
    pool.fleet.changed = {pool.host(3).id, pool.host(40).id}
    pool.reconcile()
    assert {"host-03", "host-40"} < set(pool.fleet.compared)
    assert len(pool.fleet.compared) == 7 + 2, "a tenth of all is in turn"


def test_turns_are_bounded_in_the_largest_pools() -> None:
    turns = Turns(passes=10, at_most=10)
    host_ids = [HostId(f"hst_{number}") for number in range(1000)]
    taken = [turns.take(host_ids) for _ in range(100)]
    assert {len(part) for part in taken} == {10}
    assert {host_id for part in taken for host_id in part} == set(host_ids)
    assert turns.take([]) == []


def test_the_host_of_an_agent_that_is_late_is_compared_although_it_is_not_its_turn(
    pool: Pool,
) -> None:
    sandbox = pool.world.add_warm_sandbox()
    host = pool.world.store.hosts.get(sandbox.host_id)
    for _ in range(16):  # passes, of which each compares only a tenth of the hosts in turn
        pool.world.clock.advance(5)
        summary = pool.reconcile()
        if summary:
            break
        late = pool.world.clock.now() - samples.later(0) > OVERDUE
        assert not late or host.name in pool.fleet.compared
    assert summary == f"{host.name}: orphans=0 broken=1"


@pytest.mark.parametrize(("silent", "is_counted"), [(2, False), (3, True)])
def test_all_agents_are_counted_only_if_as_many_are_late_as_may_be_silent_together(
    world: World, silent: int, is_counted: bool
) -> None:
    world.add_host(slots=20)
    sandboxes = [world.add_warm_sandbox() for _ in range(12)]
    calls = EngineCalls(world.deps, run_at_once)
    reconciler = Reconciler(world.deps, world.fleet, calls, spawn=run_at_once)
    counts = count_statements(world, "GROUP BY sandboxes.host_id, coalesce(sessions.user_id")
    for _ in range(9):
        world.clock.advance(5)
        for sandbox in sandboxes[silent:]:
            inbox.visit(world.deps, sandbox.id, "")
        reconciler.run()
    assert bool(counts) is is_counted
