"""ports.Sandboxes: which host a placement or a claim chooses."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from orchestrator.adapters.sql_store import SqlStore
from orchestrator.domain import errors, ids
from orchestrator.domain.pool.host import STARTS_AT_ONCE, STARTS_IN_LINE, Host, StartCurve, Wish
from orchestrator.domain.pool.sandbox import Sandbox
from tests.contract.store.steps import add_session, provisioning, warm_up
from tests.fakes import samples
from tests.fakes.samples import IMAGE, NOW

NEXT = "spawnai/sandbox:next"


def put(store: SqlStore, **changes: object) -> Host:
    host = samples.host(**changes)
    store.hosts.put(host)
    return host


def place(store: SqlStore, **changes: object) -> Sandbox:
    """Place a sandbox for a new session."""
    session = add_session(store)
    new = samples.new_sandbox(session_id=session.id, **changes)
    return store.sandboxes.place(new, NOW)


WISHES = [
    Wish(region="eu"),
    Wish(labels={"gpu": "yes"}),
    Wish(region="eu", labels={"gpu": "yes", "zone": "a"}),
]


@pytest.mark.parametrize("wish", WISHES, ids=str)
def test_a_wish_is_met_even_if_other_hosts_have_more_room(store: SqlStore, wish: Wish) -> None:
    for _ in range(5):
        put(store, slots=99, labels={"gpu": "no", "zone": "a"})
    matching = put(store, slots=1, region="eu", labels={"gpu": "yes", "zone": "a"})
    assert place(store, wish=wish).host_id == matching.id
    with pytest.raises(errors.NoCapacity):
        place(store, wish=wish)


@pytest.mark.parametrize("wish", WISHES, ids=str)
def test_a_claim_takes_no_older_sandbox_that_does_not_meet_the_wish(
    store: SqlStore, wish: Wish
) -> None:
    put(store, slots=1)
    other = warm_up(store)
    put(store, slots=1, region="eu", labels={"gpu": "yes", "zone": "a"})
    matching = warm_up(store)
    session = add_session(store, wish=wish)
    claim = store.sandboxes.claim(provisioning(session), NOW)
    assert claim is not None
    owner, sandbox = claim
    assert sandbox.id == matching.id
    assert owner.wish == wish
    second = add_session(store, wish=wish)
    assert store.sandboxes.claim(provisioning(second), NOW) is None
    assert store.sandboxes.get(other.id) == other


def test_hosts_that_refused_are_not_tried_again(store: SqlStore) -> None:
    hosts = [put(store, slots=9) for _ in range(5)]
    avoid = tuple(host.id for host in hosts[:4])
    assert place(store, avoid=avoid).host_id == hosts[4].id
    with pytest.raises(errors.NoCapacity):
        place(store, avoid=tuple(host.id for host in hosts))


def test_warm_sandboxes_are_spread_over_hosts(store: SqlStore) -> None:
    hosts = [put(store, slots=slots) for slots in (4, 9, 99)]
    counts = Counter(warm_up(store).host_id for _ in range(9))
    assert counts == {host.id: 3 for host in hosts}


def test_a_warm_sandbox_waits_for_a_host_with_todays_image(store: SqlStore) -> None:
    older = put(store, slots=9, image=IMAGE)
    with pytest.raises(errors.NoCapacity):
        store.sandboxes.place(samples.new_sandbox(image=NEXT), NOW)
    newer = put(store, slots=1, image=NEXT)
    assert store.sandboxes.place(samples.new_sandbox(image=NEXT), NOW).host_id == newer.id
    assert store.sandboxes.list(host_id=older.id) == []


def test_a_session_gets_the_older_image_of_its_host_rather_than_none(store: SqlStore) -> None:
    put(store, slots=9, image=IMAGE)
    newer = put(store, slots=1, image=NEXT)
    first = place(store, image=NEXT)
    assert (first.host_id, first.image) == (newer.id, NEXT)
    assert place(store, image=NEXT).image == IMAGE


def test_a_host_starts_as_many_at_once_as_its_curve_allows(store: SqlStore) -> None:
    put(store, slots=9, starts=StartCurve(seconds=(1.0, 1.2, 9.0)))
    warm = [store.sandboxes.place(samples.new_sandbox(), NOW) for _ in range(2)]
    assert [sandbox.started_with for sandbox in warm] == [1, 2]
    with pytest.raises(errors.NoCapacity):
        store.sandboxes.place(samples.new_sandbox(), NOW)


def test_a_full_burst_of_starts_goes_to_all_hosts(store: SqlStore) -> None:
    """There are more hosts than one round compares. Each is busy after some starts."""
    for _ in range(7):
        put(store, slots=9)
    most = STARTS_AT_ONCE + STARTS_IN_LINE
    placed = Counter(place(store).host_id for _ in range(5 * most))
    assert sum(placed.values()) == 5 * most
    assert max(placed.values()) <= most


def test_a_sandbox_gets_the_generation_of_its_host(store: SqlStore) -> None:
    host = put(store, slots=9)
    assert place(store).generation == 1
    store.hosts.change(host.id, lambda stored: replace(stored, generation=5))
    placed = place(store)
    assert placed.generation == 5
    assert store.sandboxes.get(placed.id) == placed


def test_a_placed_session_keeps_its_wish(store: SqlStore) -> None:
    put(store, region="eu")
    wish = Wish(region="eu")
    lost_on = {ids.new_host_id(): NOW}
    session = add_session(store, wish=wish, refused_by=(ids.new_host_id(),), lost_on=lost_on)
    new = samples.new_sandbox(session_id=session.id, wish=wish)
    store.sandboxes.place_for(provisioning(session, sandbox_id=new.id), new, NOW)
    saved = store.sessions.get(session.id)
    assert (saved.wish, saved.refused_by) == (wish, session.refused_by)
    assert saved.lost_on == lost_on


def test_warm_counts_cover_what_a_claim_could_get_by_image(store: SqlStore) -> None:
    assert dict(store.sandboxes.warm_counts()) == {}
    put(store, slots=4, image=IMAGE)
    warm_up(store)
    warm_up(store)
    host = put(store, slots=4, image=NEXT)
    warm_up(store, image=NEXT)
    store.sandboxes.place(samples.new_sandbox(image=NEXT), NOW)
    place(store)
    assert dict(store.sandboxes.warm_counts()) == {IMAGE: 2, NEXT: 1}
    assert store.sandboxes.count_warming(NOW) == 1, "a session's own sandbox does not count"
    assert store.sandboxes.count_cold() == 1
    assert store.sandboxes.count_warming(samples.later(1)) == 0, (
        "nor one whose start takes too long"
    )
    store.hosts.change(host.id, lambda stored: replace(stored, cordoned=True))
    assert dict(store.sandboxes.warm_counts()) == {IMAGE: 2}
