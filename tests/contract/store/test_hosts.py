"""ports.Hosts: what is written under a lock, losses, removals, and the pool in figures."""

from __future__ import annotations

import threading
from collections.abc import Collection
from dataclasses import replace

import pytest

from orchestrator.adapters.sql_store import SqlStore
from orchestrator.domain import errors, ids
from orchestrator.domain.pool.host import Drain, Host, HostState, Wish
from orchestrator.domain.pool.refill import PoolTotals
from orchestrator.domain.pool.sandbox import SandboxState
from tests.contract.store.steps import (
    add_session,
    provisioning,
    retire,
    run_together,
    walk,
    warm_up,
)
from tests.fakes import samples
from tests.fakes.samples import NOW, later

MACHINE = "0123456789abcdef" * 2


def put(store: SqlStore, **changes: object) -> Host:
    host = samples.host(**changes)
    store.hosts.put(host)
    return host


def lost(store: SqlStore, host: Host, reason: str = "no route") -> Host:
    """The host after its loss."""
    store.hosts.change(host.id, lambda found: replace(found, state=HostState.SUSPECT))
    store.hosts.lose(host.id, NOW, reason)
    return store.hosts.get(host.id)


# Changes


def test_a_change_is_of_what_the_host_is_by_then(store: SqlStore) -> None:
    host = put(store)
    store.hosts.change(host.id, lambda found: replace(found, cordoned=True))
    after = store.hosts.change(host.id, lambda found: replace(found, slots=7))
    assert after == replace(host, cordoned=True, slots=7)
    assert store.hosts.get(host.id) == after


def test_a_change_that_is_none_or_fails_writes_nothing(store: SqlStore) -> None:
    host = put(store)
    assert store.hosts.change(host.id, lambda found: found) == host

    def fail(found: Host) -> Host:
        raise errors.IllegalMove("a test said so")

    with pytest.raises(errors.IllegalMove):
        store.hosts.change(host.id, fail)
    with pytest.raises(errors.NotFound):
        store.hosts.change(ids.new_host_id(), lambda found: found)
    assert store.hosts.list() == [host]


def test_changes_at_the_same_time_come_one_after_the_other(store: SqlStore) -> None:
    host = put(store, slots=1)
    start = threading.Barrier(4)

    def grow() -> None:
        start.wait()
        for _ in range(5):
            store.hosts.change(host.id, lambda found: replace(found, slots=found.slots + 1))

    run_together([grow] * 4)
    assert store.hosts.get(host.id).slots == 21


def test_a_change_goes_on_counting_slots_and_ports(store: SqlStore) -> None:
    host = put(store, slots=2)
    first = warm_up(store)
    store.hosts.change(host.id, lambda found: replace(found, region="eu"))
    assert warm_up(store).port == first.port + 1
    with pytest.raises(errors.NoCapacity):
        store.sandboxes.place(samples.new_sandbox(), NOW)


# Machines and labels


def test_one_machine_is_one_host_whatever_it_is_called(store: SqlStore) -> None:
    paris = put(store, name="paris", machine_id=MACHINE)
    with pytest.raises(errors.Conflict, match="as paris") as caught:
        put(store, name="berlin", machine_id=MACHINE)
    assert (caught.value.code, caught.value.detail["host"]) == ("machine_known", "paris")
    assert store.hosts.list() == [paris]
    store.hosts.put(replace(paris, slots=9))  # itself again


def test_hosts_whose_machine_is_not_known_are_no_twins(store: SqlStore) -> None:
    put(store)
    put(store)
    assert len(store.hosts.list()) == 2


def test_labels_are_found_as_they_are_and_no_longer_as_they_were(store: SqlStore) -> None:
    host = put(store, labels={"gpu": "yes", "zone": "a"})
    assert store.hosts.known(Wish(labels={"gpu": "yes", "zone": "a"}))
    store.hosts.change(host.id, lambda found: replace(found, labels={"gpu": "no"}))
    assert not store.hosts.known(Wish(labels={"gpu": "yes"}))
    assert store.hosts.known(Wish(labels={"gpu": "no"}))
    store.hosts.put(replace(host, labels={}))
    assert not store.hosts.known(Wish(labels={"gpu": "no"}))


# Losses


def test_a_lost_host_is_of_its_next_generation_and_all_on_it_is_broken(store: SqlStore) -> None:
    host = put(store, slots=9)
    elsewhere = put(store, slots=9, cordoned=True)
    warm, gone = warm_up(store), retire(store, warm_up(store))
    stopping = walk(store, warm_up(store), SandboxState.STOPPING)
    broken = walk(store, warm_up(store), SandboxState.BROKEN)
    session = add_session(store)
    claimed = store.sandboxes.claim(provisioning(session), NOW)
    assert claimed is not None
    creating = store.sandboxes.place(samples.new_sandbox(), NOW)
    assert store.sandboxes.list(host_id=elsewhere.id) == []
    store.hosts.change(host.id, lambda found: replace(found, state=HostState.SUSPECT))

    boxes = store.hosts.lose(host.id, later(20), "no route to host")

    after = store.hosts.get(host.id)
    assert (after.state, after.reason, after.state_since) == (
        HostState.LOST,
        "no route to host",
        later(20),
    )
    assert after.generation == host.generation + 1
    expected = {
        box.id: replace(
            box,
            state=SandboxState.BROKEN,
            state_since=later(20),
            reason=f"its host {host.name} was lost",
        )
        for box in (claimed[1], creating)
    }
    assert {box.id: box for box in boxes} == {**expected, stopping.id: stopping, broken.id: broken}
    assert warm.id == claimed[1].id, "the oldest was claimed"
    for box in boxes:
        assert store.sandboxes.get(box.id) == box
    assert store.sandboxes.get(gone.id) == gone
    (load,) = [load for load in store.hosts.loads() if load.host.id == host.id]
    assert load.used == 4, "each holds its slot until it is gone"


@pytest.mark.parametrize("state", sorted(set(HostState) - {HostState.SUSPECT, HostState.LOST}))
def test_only_what_was_in_doubt_is_lost(store: SqlStore, state: HostState) -> None:
    host = put(store)
    warm = warm_up(store)
    store.hosts.change(host.id, lambda found: replace(found, state=state))
    with pytest.raises(errors.IllegalMove):
        store.hosts.lose(host.id, NOW, "no route")
    assert store.hosts.get(host.id).generation == host.generation
    assert store.sandboxes.get(warm.id) == warm
    with pytest.raises(errors.NotFound):
        store.hosts.lose(ids.new_host_id(), NOW, "no route")


def test_routes_never_hold_what_is_of_an_earlier_generation(store: SqlStore) -> None:
    host = put(store, slots=9)
    warm = warm_up(store)
    # The fence holds whatever a sandbox's state says: a write may have been on its way.
    store.hosts.change(host.id, lambda found: replace(found, generation=2))
    assert store.sandboxes.get(warm.id).state is SandboxState.WARM
    assert store.sandboxes.routes() == []
    fresh = warm_up(store)
    assert fresh.generation == 2
    assert [sandbox_id for sandbox_id, _ in store.sandboxes.routes()] == [fresh.id]


# Removals


def test_a_host_is_removed_with_the_records_of_what_is_gone(store: SqlStore) -> None:
    host = put(store, labels={"gpu": "yes"})
    gone = retire(store, warm_up(store))
    held = warm_up(store)
    with pytest.raises(errors.Conflict) as caught:
        store.hosts.remove(host.id)
    assert (caught.value.code, caught.value.detail["sandboxes"]) == ("host_in_use", 1)
    assert store.hosts.get(host.id) == host
    retire(store, held)
    store.hosts.remove(host.id)
    assert store.hosts.list() == []
    assert not store.hosts.known(Wish(labels={"gpu": "yes"}))
    for box in (gone, held):
        with pytest.raises(errors.NotFound):
            store.sandboxes.get(box.id)
    with pytest.raises(errors.NotFound):
        store.hosts.remove(host.id)


# The pool in figures


def test_totals_are_of_hosts_that_take_placements(store: SqlStore) -> None:
    assert store.hosts.totals() == PoolTotals(hosts=0, slots=0, free_slots=0)
    put(store, slots=3)
    warm_up(store)
    put(store, slots=5)
    put(store, slots=9, cordoned=True)
    put(store, slots=9, drain=Drain.WAIT)
    put(store, slots=9, shortage="its disk is full")
    for state in set(HostState) - {HostState.UP}:
        put(store, slots=9, state=state)
    assert store.hosts.totals() == PoolTotals(hosts=2, slots=8, free_slots=7)


def test_room_is_counted_no_further_than_is_asked(store: SqlStore) -> None:
    assert store.hosts.room(5) == 0
    for _ in range(3):
        put(store, slots=2)
    put(store, slots=9, cordoned=True)
    put(store, slots=0)
    assert [store.hosts.room(enough) for enough in (0, 1, 4, 6, 99)] == [0, 1, 4, 6, 6]


@pytest.mark.parametrize(
    ("wish", "without", "could"),
    [
        (Wish(), (), True),
        (Wish(region="eu"), (), True),
        (Wish(region="us"), (), False),
        (Wish(labels={"gpu": "yes"}), (), True),
        (Wish(labels={"gpu": "yes", "zone": "b"}), (), False),
        (Wish(region="eu", labels={"zone": "a"}), ("full",), False),
        (Wish(), ("full",), True),
        (Wish(), ("full", "other"), False),
    ],
    ids=str,
)
def test_what_could_take_a_session_need_not_have_a_free_slot(
    store: SqlStore, wish: Wish, without: Collection[str], could: bool
) -> None:
    full = put(store, name="full", slots=0, region="eu", labels={"gpu": "yes", "zone": "a"})
    other = put(store, name="other")
    put(store, region="us", cordoned=True)
    those = {"full": full.id, "other": other.id}
    assert store.hosts.could_take(wish, without=[those[name] for name in without]) is could


def test_a_host_is_known_in_whatever_state(store: SqlStore) -> None:
    assert not store.hosts.known(Wish())
    host = put(store, region="us", cordoned=True)
    assert store.hosts.known(Wish(region="us"))
    assert lost(store, host).state is HostState.LOST
    assert store.hosts.known(Wish(region="us"))
    assert not store.hosts.known(Wish(region="eu"))
