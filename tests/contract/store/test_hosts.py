"""ports.Hosts: writes under a lock, losses, removals, and the totals of the pool."""

from __future__ import annotations

import functools
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


def lose(store: SqlStore, host: Host, reason: str = "no route") -> Host:
    """Lose the host. Returns it as LOST."""
    store.hosts.change(host.id, lambda stored: replace(stored, state=HostState.SUSPECT))
    store.hosts.lose(host.id, NOW, reason)
    return store.hosts.get(host.id)


# Publish addresses


def test_a_publish_address_belongs_to_one_host_however_fast_two_are_added(
    store: SqlStore,
) -> None:
    conflicts: list[errors.Conflict] = []

    def add(host: Host) -> None:
        try:
            store.hosts.put(host)
        except errors.Conflict as error:
            conflicts.append(error)

    hosts = [samples.host(publish_address="10.0.0.9") for _ in range(2)]
    run_together([functools.partial(add, host) for host in hosts])
    (conflict,) = conflicts
    assert conflict.code == "publish_address_taken"
    (kept,) = store.hosts.list()
    assert f"apps of {kept.name} are published on 10.0.0.9 already" in str(conflict)


def test_a_host_that_leaves_gives_its_publish_address_free(store: SqlStore) -> None:
    put(store, publish_address="10.0.0.9", drain=Drain.LEAVE)
    assert put(store, publish_address="10.0.0.9") in store.hosts.list()


# Changes


def test_a_change_applies_to_the_stored_host(store: SqlStore) -> None:
    host = put(store)
    store.hosts.change(host.id, lambda stored: replace(stored, cordoned=True))
    after = store.hosts.change(host.id, lambda stored: replace(stored, slots=7))
    assert after == replace(host, cordoned=True, slots=7)
    assert store.hosts.get(host.id) == after


def test_an_empty_or_failing_change_writes_nothing(store: SqlStore) -> None:
    host = put(store)
    assert store.hosts.change(host.id, lambda stored: stored) == host

    def fail(stored: Host) -> Host:
        raise errors.IllegalTransition("a test said so")

    with pytest.raises(errors.IllegalTransition):
        store.hosts.change(host.id, fail)
    with pytest.raises(errors.NotFound):
        store.hosts.change(ids.new_host_id(), lambda stored: stored)
    assert store.hosts.list() == [host]


def test_concurrent_changes_run_one_after_the_other(store: SqlStore) -> None:
    host = put(store, slots=1)
    start = threading.Barrier(4)

    def grow() -> None:
        start.wait()
        for _ in range(5):
            store.hosts.change(host.id, lambda stored: replace(stored, slots=stored.slots + 1))

    run_together([grow] * 4)
    assert store.hosts.get(host.id).slots == 21


def test_a_change_keeps_the_counts_of_slots_and_ports(store: SqlStore) -> None:
    host = put(store, slots=2)
    first = warm_up(store)
    store.hosts.change(host.id, lambda stored: replace(stored, region="eu"))
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
    store.hosts.put(replace(paris, slots=9))  # the same host again


def test_hosts_without_a_machine_id_are_different_machines(store: SqlStore) -> None:
    put(store)
    put(store)
    assert len(store.hosts.list()) == 2


def test_only_current_labels_match_a_wish(store: SqlStore) -> None:
    host = put(store, labels={"gpu": "yes", "zone": "a"})
    assert store.hosts.any_meets(Wish(labels={"gpu": "yes", "zone": "a"}))
    store.hosts.change(host.id, lambda stored: replace(stored, labels={"gpu": "no"}))
    assert not store.hosts.any_meets(Wish(labels={"gpu": "yes"}))
    assert store.hosts.any_meets(Wish(labels={"gpu": "no"}))
    store.hosts.put(replace(host, labels={}))
    assert not store.hosts.any_meets(Wish(labels={"gpu": "no"}))


# Losses


def test_a_lost_host_gets_its_next_generation_and_its_sandboxes_break(store: SqlStore) -> None:
    host = put(store, slots=9)
    elsewhere = put(store, slots=9, cordoned=True)
    warm, gone = warm_up(store), retire(store, warm_up(store))
    stopping = walk(store, warm_up(store), SandboxState.STOPPING)
    broken = walk(store, warm_up(store), SandboxState.BROKEN)
    session = add_session(store)
    claim = store.sandboxes.claim(provisioning(session), NOW)
    assert claim is not None
    _, claimed = claim
    creating = store.sandboxes.place(samples.new_sandbox(), NOW)
    assert store.sandboxes.list(host_id=elsewhere.id) == []
    store.hosts.change(host.id, lambda stored: replace(stored, state=HostState.SUSPECT))

    sandboxes = store.hosts.lose(host.id, later(20), "no route to host")

    after = store.hosts.get(host.id)
    assert (after.state, after.reason, after.state_since) == (
        HostState.LOST,
        "no route to host",
        later(20),
    )
    assert after.generation == host.generation + 1
    expected = {
        sandbox.id: replace(
            sandbox,
            state=SandboxState.BROKEN,
            state_since=later(20),
            reason=f"its host {host.name} was lost",
        )
        for sandbox in (claimed, creating)
    }
    assert {sandbox.id: sandbox for sandbox in sandboxes} == {
        **expected,
        stopping.id: stopping,
        broken.id: broken,
    }
    assert warm.id == claimed.id, "the oldest was claimed"
    for sandbox in sandboxes:
        assert store.sandboxes.get(sandbox.id) == sandbox
    assert store.sandboxes.get(gone.id) == gone
    (load,) = [load for load in store.hosts.loads() if load.host.id == host.id]
    assert load.used == 4, "each holds its slot until it is gone"


@pytest.mark.parametrize("state", sorted(set(HostState) - {HostState.SUSPECT, HostState.LOST}))
def test_only_a_suspect_host_can_be_lost(store: SqlStore, state: HostState) -> None:
    host = put(store)
    warm = warm_up(store)
    store.hosts.change(host.id, lambda stored: replace(stored, state=state))
    with pytest.raises(errors.IllegalTransition):
        store.hosts.lose(host.id, NOW, "no route")
    assert store.hosts.get(host.id).generation == host.generation
    assert store.sandboxes.get(warm.id) == warm
    with pytest.raises(errors.NotFound):
        store.hosts.lose(ids.new_host_id(), NOW, "no route")


def test_routes_never_hold_sandboxes_of_an_earlier_generation(store: SqlStore) -> None:
    host = put(store, slots=9)
    warm = warm_up(store)
    # The fence holds whatever the sandbox's state: a late write may have set it.
    store.hosts.change(host.id, lambda stored: replace(stored, generation=2))
    assert store.sandboxes.get(warm.id).state is SandboxState.WARM
    assert store.sandboxes.routes().routes == {}
    fresh = warm_up(store)
    assert fresh.generation == 2
    assert list(store.sandboxes.routes().routes) == [fresh.id]


# Removals


def test_a_host_is_removed_with_the_records_of_its_gone_sandboxes(store: SqlStore) -> None:
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
    assert not store.hosts.any_meets(Wish(labels={"gpu": "yes"}))
    for sandbox in (gone, held):
        with pytest.raises(errors.NotFound):
            store.sandboxes.get(sandbox.id)
    with pytest.raises(errors.NotFound):
        store.hosts.remove(host.id)


# Totals of the pool


def test_totals_count_hosts_that_take_placements(store: SqlStore) -> None:
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


def test_free_slots_are_counted_up_to_the_limit(store: SqlStore) -> None:
    assert store.hosts.free_slots(5) == 0
    for _ in range(3):
        put(store, slots=2)
    put(store, slots=9, cordoned=True)
    put(store, slots=0)
    assert [store.hosts.free_slots(enough) for enough in (0, 1, 4, 6, 99)] == [0, 1, 4, 6, 6]


@pytest.mark.parametrize(
    ("wish", "without", "accepts"),
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
def test_a_host_accepts_sessions_even_without_a_free_slot(
    store: SqlStore, wish: Wish, without: Collection[str], accepts: bool
) -> None:
    full = put(store, name="full", slots=0, region="eu", labels={"gpu": "yes", "zone": "a"})
    other = put(store, name="other")
    put(store, region="us", cordoned=True)
    ids_by_name = {"full": full.id, "other": other.id}
    excluded = [ids_by_name[name] for name in without]
    assert store.hosts.any_accepts(wish, without=excluded) is accepts
    with_room = not wish and "other" not in without
    assert store.hosts.any_accepts(wish, without=excluded, with_room=True) is with_room


def test_a_host_in_any_state_can_meet_a_wish(store: SqlStore) -> None:
    assert not store.hosts.any_meets(Wish())
    host = put(store, region="us", cordoned=True)
    assert store.hosts.any_meets(Wish(region="us"))
    assert lose(store, host).state is HostState.LOST
    assert store.hosts.any_meets(Wish(region="us"))
    assert not store.hosts.any_meets(Wish(region="eu"))


def test_the_answers_of_several_hosts_are_recorded_together(store: SqlStore) -> None:
    hosts = put(store), put(store), put(store, seen_at=None)
    store.hosts.seen([hosts[0].id, hosts[1].id, ids.new_host_id()], later(7))
    store.hosts.seen([], later(9))
    seen_at = [store.hosts.get(host.id).seen_at for host in hosts]
    assert seen_at == [later(7), later(7), None]
