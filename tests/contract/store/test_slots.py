"""Slots are neither lost nor given twice: random walks, and many hands at once."""

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
from orchestrator.domain.pool import sandbox as sandboxes
from orchestrator.domain.pool.host import Host, HostState
from orchestrator.domain.pool.sandbox import Sandbox, SandboxState
from orchestrator.domain.sessions.session import SessionState
from tests.contract.store.steps import add_session, provisioning, run_together
from tests.fakes import samples
from tests.fakes.samples import NOW

EXPECTED = (errors.NoCapacity, errors.StaleWrite, errors.IllegalMove, errors.NotFound)


@dataclass
class Hand:
    """Somebody who does what daemons, workers and agents do, in any order."""

    store: SqlStore
    dice: random.Random
    done: Counter[str] = field(default_factory=Counter)

    def act(self) -> None:
        """One thing; that somebody was faster, or that there is no room, is no error."""
        acts: list[Callable[[], object]] = [
            *(self.place, self.place_for, self.claim, self.settle) * 2,
            *(self.advance, self.advance, self.lose, self.come_back, self.settle_withdrawals),
        ]
        act = self.dice.choice(acts)
        with suppress(*EXPECTED):
            act()
            self.done[act.__name__] += 1

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
        """A sandbox dials home and its route goes live."""
        box = self._any_box(SandboxState.CREATING)
        self.store.sandboxes.agent_seen(box.id, NOW)
        self.store.sandboxes.mark_routes({box.id: box.slug}, [], NOW)

    def advance(self) -> None:
        """A sandbox goes a step nearer to its end."""
        box = self._any_box(*SandboxState)
        ends = sandboxes.TRANSITIONS[box.state] - sandboxes.ROUTED_STATES
        to = self.dice.choice(sorted(ends) or [SandboxState.GONE])
        self.store.sandboxes.save(box.transition(to, NOW, "a test said so"), box.state)

    def settle_withdrawals(self) -> None:
        stopping = self.store.sandboxes.list(states=[SandboxState.STOPPING])
        self.store.sandboxes.mark_routes({}, [box.id for box in stopping], NOW)

    def lose(self) -> None:
        host = self.dice.choice(self.store.hosts.list())
        self._move(host, HostState.SUSPECT)
        self.store.hosts.lose(host.id, NOW, "no route")

    def come_back(self) -> None:
        for host in self.store.hosts.list():
            if host.state is not HostState.UP:
                with suppress(errors.IllegalMove):
                    self._move(host, HostState.JOINING)
                self._move(host, HostState.UP)

    def _move(self, host: Host, to: HostState) -> None:
        self.store.hosts.change(host.id, lambda found: found.transition(to, NOW, "a test"))

    def _any_box(self, *states: SandboxState) -> Sandbox:
        boxes = self.store.sandboxes.list(states=states)
        if not boxes:
            raise errors.NotFound("nothing is there yet")
        return self.dice.choice(boxes)


def used(store: SqlStore) -> dict[ids.HostId, int]:
    """What the hosts' own counters say."""
    with store._database.read() as connection:
        rows = connection.execute(sa.select(schema.hosts.c.id, schema.hosts.c.used)).all()
    return dict(rows)


def assert_sound(store: SqlStore) -> None:
    """What holds at every moment, whoever did what."""
    live = store.sandboxes.list()
    by_host = Counter(box.host_id for box in live)
    assert used(store) == {host.id: by_host[host.id] for host in store.hosts.list()}
    for host in store.hosts.list():
        assert by_host[host.id] <= host.slots
    assert len({(box.host_id, box.port) for box in live}) == len(live)
    owners = [box.session_id for box in live if box.session_id is not None]
    assert len(set(owners)) == len(owners), "a session has two sandboxes"
    now_up = {host.id: host.generation for host in store.hosts.list()}
    routed = {sandbox_id for sandbox_id, _ in store.sandboxes.routes()}
    assert routed == {
        box.id
        for box in live
        if box.state in sandboxes.ROUTED_STATES and box.generation == now_up[box.host_id]
    }


def furnish(store: SqlStore, *slots: int) -> None:
    for number, count in enumerate(slots, start=1):
        store.hosts.put(samples.host(slots=count, publish_address=f"10.0.0.{number}"))


@pytest.mark.parametrize("seed", range(4))
def test_a_hosts_counter_is_the_number_of_its_live_sandboxes(store: SqlStore, seed: int) -> None:
    furnish(store, 2, 4, 9)
    hand = Hand(store=store, dice=random.Random(seed))
    for _ in range(120):
        hand.act()
        assert_sound(store)
    assert hand.done["lose"] > 0
    assert hand.done["claim"] > 0


def test_many_hands_at_once_neither_lose_slots_nor_give_one_twice(store: SqlStore) -> None:
    """None of them waits for another for ever either: a deadlock would be an error of its own."""
    furnish(store, 2, 4, 6)
    start = threading.Barrier(4)
    hands = [Hand(store=store, dice=random.Random(seed)) for seed in range(4)]

    def work(hand: Hand) -> None:
        start.wait()
        for _ in range(60):
            hand.act()

    run_together([lambda hand=hand: work(hand) for hand in hands])  # type: ignore[misc]
    assert_sound(store)
    done = sum((hand.done for hand in hands), Counter[str]())
    assert min(done[name] for name in ("place", "place_for", "claim", "advance")) > 0


def test_the_last_slots_go_to_as_many_as_there_are(store: SqlStore) -> None:
    furnish(store, 1, 2)
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
    assert_sound(store)
    assert len(placed) == 3
    states = Counter(session.state for session in store.sessions.list())
    assert states == {SessionState.PROVISIONING: 3, SessionState.QUEUED: 3}


def test_what_is_placed_while_its_host_is_lost_is_lost_or_of_the_next_generation(
    store: SqlStore,
) -> None:
    furnish(store, 90)
    (host,) = store.hosts.list()
    start = threading.Barrier(3)

    def place() -> None:
        start.wait()
        for _ in range(10):
            with suppress(errors.NoCapacity):
                box = store.sandboxes.place(samples.new_sandbox(), NOW)
                store.sandboxes.agent_seen(box.id, NOW)
                store.sandboxes.mark_routes({box.id: box.slug}, [], NOW)

    def lose() -> None:
        start.wait()
        for state in itertools.islice(itertools.cycle([HostState.JOINING, HostState.UP]), 6):
            store.hosts.change(host.id, lambda found: replace(found, state=HostState.SUSPECT))
            store.hosts.lose(host.id, NOW, "no route")
            store.hosts.change(
                host.id,
                lambda found, state=state: replace(found, state=state),  # type: ignore[misc]
            )

    run_together([place, place, lose])
    assert_sound(store)
    generation = store.hosts.get(host.id).generation
    for box in store.sandboxes.list():
        assert (box.generation == generation) or box.state is SandboxState.BROKEN


def test_a_slot_is_given_back_once(store: SqlStore) -> None:
    furnish(store, 4)
    box = store.sandboxes.place(samples.new_sandbox(), NOW)
    store.sandboxes.place(samples.new_sandbox(), NOW)
    stopping = store.sandboxes.save(
        box.transition(SandboxState.STOPPING, NOW), SandboxState.CREATING
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
    assert_sound(store)
