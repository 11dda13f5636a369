"""ports.Sandboxes: placements of new sandboxes, and their ports; ports.Hosts: the hosts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.adapters.sql_store import SqlStore
from orchestrator.domain import errors, ids
from orchestrator.domain.pool.host import (
    STARTS_AT_ONCE,
    STARTS_IN_LINE,
    Drain,
    HostLoad,
    HostState,
    Losses,
    StartCurve,
)
from orchestrator.domain.pool.sandbox import Sandbox, SandboxState
from tests.contract.store.steps import add_session, provisioning, retire, walk, warm_up
from tests.fakes import samples
from tests.fakes.samples import NOW, later


def test_a_new_sandbox_is_an_intent_on_the_host_with_most_room(store: SqlStore) -> None:
    small, large = samples.host(slots=1), samples.host(slots=3)
    store.hosts.put(small)
    store.hosts.put(large)
    session = add_session(store)
    new = samples.new_sandbox(session_id=session.id)
    placed = store.sandboxes.place(new, later(4))
    assert placed == Sandbox(
        id=new.id,
        host_id=large.id,
        session_id=session.id,
        state=SandboxState.CREATING,
        slug=new.slug,
        port=21000,
        image=new.image,
        container_id=None,
        agent_seen_at=None,
        routed=False,
        reason="",
        created_at=later(4),
        state_since=later(4),
    )
    assert store.sandboxes.get(new.id) == placed


def test_sandboxes_are_placed_until_no_slot_is_free(store: SqlStore) -> None:
    store.hosts.put(samples.host(slots=2))
    first = warm_up(store)
    warm_up(store)
    with pytest.raises(errors.NoCapacity):
        store.sandboxes.place(samples.new_sandbox(), NOW)
    walk(store, first, SandboxState.BROKEN)
    with pytest.raises(errors.NoCapacity):  # it holds its slot until it is GONE
        store.sandboxes.place(samples.new_sandbox(), NOW)
    retire(store, store.sandboxes.get(first.id))
    store.sandboxes.place(samples.new_sandbox(), NOW)


def test_few_sandboxes_start_on_one_host_at_once(store: SqlStore) -> None:
    store.hosts.put(samples.host(slots=9))
    started = [store.sandboxes.place(samples.new_sandbox(), NOW) for _ in range(3)]
    with pytest.raises(errors.NoCapacity):
        store.sandboxes.place(samples.new_sandbox(), NOW)
    walk(store, started[0], SandboxState.BROKEN)
    store.sandboxes.place(samples.new_sandbox(), NOW)


def test_sandboxes_of_sessions_wait_in_line_for_their_start(store: SqlStore) -> None:
    host = samples.host(slots=9)
    store.hosts.put(host)
    for places in range(STARTS_AT_ONCE + STARTS_IN_LINE, 0, -1):
        assert store.hosts.free_slots(99) == places
        store.sandboxes.place(samples.new_sandbox(session_id=add_session(store).id), NOW)
    assert store.hosts.free_slots(99) == 0
    with pytest.raises(errors.NoCapacity):
        store.sandboxes.place(samples.new_sandbox(session_id=add_session(store).id), NOW)


def test_sandboxes_of_sessions_are_started_before_those_of_the_warm_pool(store: SqlStore) -> None:
    store.hosts.put(samples.host(slots=9))
    warm = store.sandboxes.place(samples.new_sandbox(), NOW)
    new = samples.new_sandbox(session_id=add_session(store).id)
    mine = store.sandboxes.place(new, later(1))
    assert [sandbox.id for sandbox in store.sandboxes.unstarted()] == [mine.id, warm.id]


@pytest.mark.parametrize(
    "change",
    [
        {"cordoned": True},
        {"drain": Drain.WAIT},
        {"drain": Drain.MOVE},
        {"state": HostState.JOINING},
        {"shortage": "its disk is full"},
        {"slots": 0},
    ],
)
def test_nothing_is_placed_on_a_host_that_takes_no_placements(
    store: SqlStore, change: dict[str, object]
) -> None:
    store.hosts.put(samples.host(**change))
    with pytest.raises(errors.NoCapacity):
        store.sandboxes.place(samples.new_sandbox(), NOW)
    assert store.sandboxes.list() == []


def test_a_released_port_is_the_last_to_be_used_again(store: SqlStore) -> None:
    store.hosts.put(samples.host(slots=4))
    kept = warm_up(store)
    ports = [kept.port]
    for _ in range(9):
        sandbox = warm_up(store)
        ports.append(sandbox.port)
        retire(store, sandbox)
    assert ports == list(range(21000, 21010))
    assert warm_up(store).port == 21001, "from the start again, past the port in use"


def test_each_host_has_its_own_ports(store: SqlStore) -> None:
    store.hosts.put(samples.host(slots=1))
    store.hosts.put(samples.host(slots=1))
    placed = [store.sandboxes.place(samples.new_sandbox(), NOW) for _ in range(2)]
    assert len({sandbox.host_id for sandbox in placed}) == 2
    assert [sandbox.port for sandbox in placed] == [21000, 21000]


def test_a_host_without_a_free_port_has_no_room(store: SqlStore) -> None:
    store.hosts.put(samples.host(slots=99))
    assert len({warm_up(store).port for _ in range(10)}) == 10
    with pytest.raises(errors.NoCapacity):
        store.sandboxes.place(samples.new_sandbox(), NOW)


def test_a_port_of_another_program_is_set_aside_for_ten_minutes(store: SqlStore) -> None:
    host = samples.host(slots=99)
    store.hosts.put(host)
    placed = store.sandboxes.place(samples.new_sandbox(), NOW)
    store.sandboxes.mark_routes(samples.routes_of(placed), [], NOW)
    changed = store.sandboxes.change_port(placed, NOW)
    assert changed == replace(placed, port=21001) == store.sandboxes.get(placed.id)
    assert store.hosts.get(host.id).taken_ports == {21000: later(600)}
    for _ in range(8):
        retire(store, warm_up(store))
    assert warm_up(store, later(599)).port == 21002
    for _ in range(7):
        retire(store, warm_up(store, later(599)))
    assert warm_up(store, later(600)).port == 21000


def test_a_host_whose_ports_are_all_taken_lacks_them(store: SqlStore) -> None:
    host = samples.host(slots=99)
    store.hosts.put(host)
    warm_up(store)
    placed = store.sandboxes.place(samples.new_sandbox(), NOW)
    for port in range(21001, 21009):
        placed = replace(placed, port=port)
        changed = store.sandboxes.change_port(placed, NOW)
        assert changed is not None
        assert changed.port == port + 1
    assert store.sandboxes.has_free_port(store.hosts.get(host.id), later(600))
    assert not store.sandboxes.has_free_port(store.hosts.get(host.id), NOW)
    assert store.sandboxes.change_port(replace(placed, port=21009), NOW) is None
    after = store.hosts.get(host.id)
    assert not after.accepts_placements
    assert after.shortage.endswith("other programs hold 9 of them")
    with pytest.raises(errors.NoCapacity):
        store.sandboxes.place(samples.new_sandbox(), later(1))


@pytest.mark.parametrize("end", [SandboxState.STOPPING, SandboxState.BROKEN])
def test_only_a_sandbox_that_waits_for_its_start_gets_another_port(
    store: SqlStore, end: SandboxState
) -> None:
    host = samples.host()
    store.hosts.put(host)
    placed = store.sandboxes.place(samples.new_sandbox(), NOW)
    walk(store, placed, end)
    with pytest.raises(errors.StaleWrite):
        store.sandboxes.change_port(placed, NOW)
    assert store.sandboxes.get(placed.id).port == placed.port
    assert store.hosts.get(host.id) == host


def test_a_slug_belongs_to_one_sandbox_until_that_is_gone(store: SqlStore) -> None:
    store.hosts.put(samples.host())
    first = warm_up(store)
    with pytest.raises(errors.Conflict):
        store.sandboxes.place(samples.new_sandbox(slug=first.slug), NOW)
    retire(store, first)
    assert store.sandboxes.place(samples.new_sandbox(slug=first.slug), NOW).slug == first.slug


def test_no_sandbox_is_placed_for_an_unknown_session(store: SqlStore) -> None:
    store.hosts.put(samples.host())
    with pytest.raises(errors.NotFound):
        store.sandboxes.place(samples.new_sandbox(session_id=ids.new_session_id()), NOW)
    assert store.sandboxes.list() == []
    assert store.hosts.loads()[0].used == 0


def test_a_sandbox_and_its_session_are_written_together(store: SqlStore) -> None:
    store.hosts.put(samples.host())
    session = add_session(store)
    new = samples.new_sandbox(session_id=session.id)
    wanted = provisioning(session, sandbox_id=new.id, slug=new.slug)
    placed = store.sandboxes.place_for(wanted, new, NOW)
    assert store.sandboxes.get(new.id) == placed
    assert placed.session_id == session.id
    assert store.sessions.get(session.id) == replace(wanted, revision=1)


def test_a_stale_session_gets_no_sandbox(store: SqlStore) -> None:
    store.hosts.put(samples.host())
    session = add_session(store)
    saved = store.sessions.save(replace(session, attempt=2))
    new = samples.new_sandbox(session_id=session.id)
    with pytest.raises(errors.StaleWrite):
        store.sandboxes.place_for(provisioning(session, sandbox_id=new.id), new, NOW)
    assert store.sandboxes.list() == []
    assert store.sessions.get(session.id) == saved


def test_without_room_the_session_stays_as_it_was(store: SqlStore) -> None:
    session = add_session(store)
    new = samples.new_sandbox(session_id=session.id)
    with pytest.raises(errors.NoCapacity):
        store.sandboxes.place_for(provisioning(session, sandbox_id=new.id), new, NOW)
    assert store.sessions.get(session.id) == session


def test_every_field_of_a_host_comes_back_as_it_was(store: SqlStore) -> None:
    first = samples.host(
        created_at=later(-1),
        docker_url="ssh://root@10.0.0.5:2222",
        host_key="ssh-ed25519 AAAAC3Nz",
        machine_id="f" * 32,
        region="eu",
        labels={"gpu": "yes", "zone": ""},
        shortage="disk: 0.5 GiB free",
        taken_ports={21000: later(600), 21007: later(7)},
        losses=Losses(owners={"usr_a": later(1)}, in_a_row=2, until=later(10)),
        starts=StartCurve(seconds=(0.5, None, 2.25)),
        generation=4,
    )
    second = samples.host(
        state=HostState.LOST, cordoned=True, drain=Drain.MOVE, reason="kein Netz", seen_at=None
    )
    for host in (second, first):
        store.hosts.put(host)
        assert store.hosts.get(host.id) == host
        assert store.hosts.by_name(host.name) == host
    assert store.hosts.list() == [first, second]
    assert store.hosts.by_name("nobody") is None
    with pytest.raises(errors.NotFound):
        store.hosts.get(ids.new_host_id())


def test_a_host_that_is_put_again_is_replaced_but_keeps_its_port_cursor(store: SqlStore) -> None:
    host = samples.host()
    store.hosts.put(host)
    warm_up(store)
    changed = replace(host, name="renamed", slots=7)
    store.hosts.put(changed)
    assert store.hosts.list() == [changed]
    assert warm_up(store).port == 21001


def test_two_hosts_never_share_a_name(store: SqlStore) -> None:
    host = samples.host()
    store.hosts.put(host)
    with pytest.raises(errors.Conflict) as caught:
        store.hosts.put(samples.host(name=host.name))
    assert caught.value.code == "host_exists"
    assert store.hosts.list() == [host]


def test_loads_count_used_slots_and_starts(store: SqlStore) -> None:
    idle, busy = samples.host(slots=0), samples.host(slots=9, created_at=later(1))
    store.hosts.put(idle)
    store.hosts.put(busy)
    retire(store, warm_up(store))
    walk(store, warm_up(store), SandboxState.BROKEN)
    warm_up(store)
    store.sandboxes.place(samples.new_sandbox(), NOW)
    assert store.hosts.loads() == [
        HostLoad(host=idle, used=0, starting=0, warm=0),
        HostLoad(host=busy, used=3, starting=1, warm=2),
    ]
