"""Slots are neither lost nor given twice: random walks, alone and in parallel."""

from __future__ import annotations

import itertools
import random
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace

import pytest
import sqlalchemy as sa

from orchestrator.adapters.sql_store import SqlStore, schema
from orchestrator.domain import errors, ids
from orchestrator.domain.pool.host import Host, HostState
from orchestrator.domain.pool.sandbox import ROUTED_STATES, TRANSITIONS, Sandbox, SandboxState
from orchestrator.domain.sessions.session import SessionState
from tests.contract.store.steps import add_session, provisioning, run_together
from tests.fakes import samples
from tests.fakes.samples import NOW

EXPECTED = (errors.NoCapacity, errors.StaleWrite, errors.IllegalTransition, errors.NotFound)


@dataclass
class Actor:
    """Does at random what daemons, workers and agents do."""

    store: SqlStore
    dice: random.Random
    counts: Counter[str] = field(default_factory=Counter)

    def act(self) -> None:
        """Do one action. Losing a race, or finding no room, is no error."""
        actions: list[Callable[[], object]] = [
            *(self.place, self.place_for, self.claim, self.settle) * 2,
            *(self.advance, self.advance, self.lose, self.recover_hosts, self.settle_withdrawals),
        ]
        action = self.dice.choice(actions)
        with suppress(*EXPECTED):
            action()
            self.counts[action.__name__] += 1

    def place(self) -> None:
        self.store.sandboxes.place(samples.new_sandbox(), NOW)

    def place_for(self) -> None:
        session = add_session(self.store)
        new = samples.new_sandbox(session_id=session.id)
        moved = provisioning(session, sandbox_id=new.id, slug=new.slug)
        self.store.sandboxes.place_for(moved, new, NOW)

    def claim(self) -> None:
        self.store.sandboxes.claim(provisioning(add_session(self.store)), NOW)

    def settle(self) -> None:
        """An agent visits and its route becomes live."""
        sandbox = self._pick_sandbox(SandboxState.CREATING)
        self.store.sandboxes.agent_seen(sandbox.id, NOW)
        self.store.sandboxes.mark_routes(samples.routes_of(sandbox), [], NOW)

    def advance(self) -> None:
        """Take a sandbox one step towards its end."""
        sandbox = self._pick_sandbox(*SandboxState)
        end_states = TRANSITIONS[sandbox.state] - ROUTED_STATES
        to = self.dice.choice(sorted(end_states) or [SandboxState.GONE])
        self.store.sandboxes.save(sandbox.transition(to, NOW, "a test said so"), sandbox.state)

    def settle_withdrawals(self) -> None:
        stopping = self.store.sandboxes.list(states=[SandboxState.STOPPING])
        self.store.sandboxes.mark_routes({}, [sandbox.id for sandbox in stopping], NOW)

    def lose(self) -> None:
        host = self.dice.choice(self.store.hosts.list())
        self._change_state(host, HostState.SUSPECT)
        self.store.hosts.lose(host.id, NOW, "no route")

    def recover_hosts(self) -> None:
        for host in self.store.hosts.list():
            if host.state is not HostState.UP:
                with suppress(errors.IllegalTransition):
                    self._change_state(host, HostState.JOINING)
                self._change_state(host, HostState.UP)

    def _change_state(self, host: Host, to: HostState) -> None:
        self.store.hosts.change(host.id, lambda stored: stored.transition(to, NOW, "a test"))

    def _pick_sandbox(self, *states: SandboxState) -> Sandbox:
        sandboxes = self.store.sandboxes.list(states=states)
        if not sandboxes:
            raise errors.NotFound("there is no such sandbox yet")
        return self.dice.choice(sandboxes)


def used_slots(store: SqlStore) -> dict[ids.HostId, int]:
    """The `used_slots` counter of each host."""
    with store._database.read() as connection:
        rows = connection.execute(sa.select(schema.hosts.c.id, schema.hosts.c.used)).all()
    return dict(rows)


def assert_consistent(store: SqlStore) -> None:
    """Check the invariants that hold at every moment."""
    live = store.sandboxes.list()
    by_host = Counter(sandbox.host_id for sandbox in live)
    assert used_slots(store) == {host.id: by_host[host.id] for host in store.hosts.list()}
    for host in store.hosts.list():
        assert by_host[host.id] <= host.slots
    assert len({(sandbox.host_id, sandbox.port) for sandbox in live}) == len(live)
    owners = [sandbox.session_id for sandbox in live if sandbox.session_id is not None]
    assert len(set(owners)) == len(owners), "a session has two sandboxes"
    generations = {host.id: host.generation for host in store.hosts.list()}
    routed = set(store.sandboxes.routes().routes)
    assert routed == {
        sandbox.id
        for sandbox in live
        if sandbox.state in ROUTED_STATES and sandbox.generation == generations[sandbox.host_id]
    }


def add_hosts(store: SqlStore, *slots: int) -> None:
    for number, count in enumerate(slots, start=1):
        store.hosts.put(samples.host(slots=count, publish_address=f"10.0.0.{number}"))


@pytest.mark.parametrize("seed", range(4))
def test_a_hosts_counter_is_the_number_of_its_live_sandboxes(store: SqlStore, seed: int) -> None:
    add_hosts(store, 2, 4, 9)
    actor = Actor(store=store, dice=random.Random(seed))
    for _ in range(120):
        actor.act()
        assert_consistent(store)
    assert actor.counts["lose"] > 0
    assert actor.counts["claim"] > 0


def test_concurrent_actors_neither_lose_slots_nor_give_one_twice(store: SqlStore) -> None:
    """It also shows that they don't deadlock: that would raise another error."""
    add_hosts(store, 2, 4, 6)
    start = threading.Barrier(4)
    actors = [Actor(store=store, dice=random.Random(seed)) for seed in range(4)]

    def work(actor: Actor) -> None:
        start.wait()
        for _ in range(60):
            actor.act()

    run_together([lambda actor=actor: work(actor) for actor in actors])  # type: ignore[misc]
    assert_consistent(store)
    counts = sum((actor.counts for actor in actors), Counter[str]())
    assert min(counts[name] for name in ("place", "place_for", "claim", "advance")) > 0


def test_concurrent_placements_get_exactly_the_free_slots(store: SqlStore) -> None:
    add_hosts(store, 1, 2)
    start = threading.Barrier(6)
    placed: list[Sandbox] = []

    def place() -> None:
        session = add_session(store)
        new = samples.new_sandbox(session_id=session.id)
        start.wait()
        with suppress(errors.NoCapacity):
            moved = provisioning(session, sandbox_id=new.id, slug=new.slug)
            placed.append(store.sandboxes.place_for(moved, new, NOW))

    run_together([place] * 6)
    assert_consistent(store)
    assert len(placed) == 3
    states = Counter(session.state for session in store.sessions.list())
    assert states == {SessionState.PROVISIONING: 3, SessionState.QUEUED: 3}


def test_a_sandbox_placed_during_a_host_loss_is_lost_or_of_the_next_generation(
    store: SqlStore,
) -> None:
    add_hosts(store, 90)
    (host,) = store.hosts.list()
    start = threading.Barrier(3)

    def place() -> None:
        start.wait()
        for _ in range(10):
            with suppress(errors.NoCapacity):
                sandbox = store.sandboxes.place(samples.new_sandbox(), NOW)
                store.sandboxes.agent_seen(sandbox.id, NOW)
                store.sandboxes.mark_routes(samples.routes_of(sandbox), [], NOW)

    def lose() -> None:
        start.wait()
        for state in itertools.islice(itertools.cycle([HostState.JOINING, HostState.UP]), 6):
            store.hosts.change(host.id, lambda stored: replace(stored, state=HostState.SUSPECT))
            store.hosts.lose(host.id, NOW, "no route")
            store.hosts.change(
                host.id,
                lambda stored, state=state: replace(stored, state=state),  # type: ignore[misc]
            )

    run_together([place, place, lose])
    assert_consistent(store)
    generation = store.hosts.get(host.id).generation
    for sandbox in store.sandboxes.list():
        assert (sandbox.generation == generation) or sandbox.state is SandboxState.BROKEN


def test_a_slot_is_released_once(store: SqlStore) -> None:
    add_hosts(store, 4)
    sandbox = store.sandboxes.place(samples.new_sandbox(), NOW)
    store.sandboxes.place(samples.new_sandbox(), NOW)
    stopping = store.sandboxes.save(
        sandbox.transition(SandboxState.STOPPING, NOW), SandboxState.CREATING
    )
    start = threading.Barrier(3)
    outcomes: list[str] = []

    def remove() -> None:
        start.wait()
        try:
            gone = stopping.transition(SandboxState.GONE, NOW)
            store.sandboxes.save(gone, SandboxState.STOPPING)
            outcomes.append("removed")
        except errors.StaleWrite:
            outcomes.append("stale")

    run_together([remove] * 3)
    assert sorted(outcomes) == ["removed", "stale", "stale"]
    assert_consistent(store)
