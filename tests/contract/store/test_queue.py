"""ports.Sessions: the queue, due sessions, expiry and pruning."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event

from orchestrator.adapters import sql_store
from orchestrator.adapters.sql_store import SqlStore, schema, sessions
from orchestrator.domain import errors, ids
from orchestrator.domain.ids import SessionId, UserId
from orchestrator.domain.pool.host import HostState, Wish
from orchestrator.domain.pool.sandbox import SandboxState
from orchestrator.domain.sessions.rooms import Demand
from orchestrator.domain.sessions.session import SessionState, Tier, Wanted
from tests.contract.store.steps import add_session, provisioning, retire, walk, warm_up
from tests.fakes import samples
from tests.fakes.samples import NOW, later


def test_active_sessions_are_those_that_have_not_ended(store: SqlStore) -> None:
    for state in SessionState:
        add_session(store, state=state)
    add_session(store, user_id=ids.new_user_id())
    with pytest.raises(errors.LimitReached):
        store.sessions.add(samples.session(), None, max_active=6)
    store.sessions.add(samples.session(), None, max_active=7)
    store.sessions.add(samples.session(user_id=ids.new_user_id()), None, max_active=1)


def test_counts_name_each_state_that_has_sessions(store: SqlStore) -> None:
    assert store.sessions.counts() == {}
    for state in (SessionState.QUEUED, SessionState.FAILED, SessionState.FAILED):
        add_session(store, state=state)
    assert store.sessions.counts() == {SessionState.QUEUED: 1, SessionState.FAILED: 2}


def test_the_newest_session_of_some_states_is_found(store: SqlStore) -> None:
    states = [SessionState.PROVISIONING, SessionState.DEPLOYING]
    add_session(store, state=SessionState.READY, created_at=later(9))
    assert store.sessions.newest_in(states) is None
    for state, created_at in zip(states, (later(2), later(1)), strict=True):
        add_session(store, state=state, created_at=created_at)
    assert store.sessions.newest_in(states) == later(2)
    assert store.sessions.newest_in(states[1:]) == later(1)


def test_the_queue_is_by_tier_then_age_then_id(store: SqlStore) -> None:
    free = add_session(store, created_at=later(-90))
    older, younger = sorted(
        (add_session(store, tier=Tier.PRO, created_at=later(-50)) for _ in range(2)),
        key=lambda session: session.id,
    )
    oldest = add_session(store, tier=Tier.PRO, created_at=later(-60))
    operators = add_session(store, tier=Tier.OPERATOR)
    queue = [operators, oldest, older, younger, free]
    assert [store.sessions.count_ahead_of(session, NOW) for session in queue] == [0, 1, 2, 3, 4]
    ids_in_order = [session.id for session in queue]
    assert [waiting.id for waiting in store.sessions.queue(NOW, 10)] == ids_in_order
    assert [waiting.id for waiting in store.sessions.queue(NOW, 2)] == ids_in_order[:2]
    assert store.sessions.get_many([free.id, ids.new_session_id(), oldest.id]) == [free, oldest]
    assert store.sessions.due(NOW, 10) == []
    assert store.sessions.demand(NOW) == [Demand(count=5)]


def test_a_session_whose_app_has_run_comes_before_all_newcomers_also_while_it_pauses(
    store: SqlStore,
) -> None:
    operators = add_session(store, tier=Tier.OPERATOR, created_at=later(-90))
    lost = add_session(store, version=2, due_at=later(60))
    back = add_session(store, version=1, created_at=later(1), due_at=NOW)
    assert store.sessions.count_ahead_of(operators, NOW) == 2
    assert store.sessions.count_ahead_of(lost, NOW) == 0
    assert store.sessions.count_ahead_of(back, NOW) == 1
    assert [(waiting.id, waiting.due_at) for waiting in store.sessions.queue(NOW, 10)] == [
        (lost.id, later(60)),
        (back.id, NOW),
        (operators.id, operators.due_at),
    ]
    assert store.sessions.demand(NOW) == [Demand(count=3)]


def test_a_session_that_would_wait_behind_too_many_is_refused(store: SqlStore) -> None:
    for _ in range(3):
        add_session(store, created_at=later(-1))
    add_session(store, state=SessionState.READY)
    newcomer = samples.session(user_id=ids.new_user_id())
    with pytest.raises(errors.NoCapacity) as caught:
        store.sessions.add(newcomer, None, max_active=9, max_ahead=3)
    assert (caught.value.code, caught.value.detail["limit"]) == ("queue_full", 3)
    store.sessions.add(newcomer, None, max_active=9, max_ahead=4)
    paying = samples.session(user_id=ids.new_user_id(), tier=Tier.PRO)
    store.sessions.add(paying, None, max_active=9, max_ahead=1)


def test_only_waiting_sessions_count_as_ahead(store: SqlStore) -> None:
    mine = add_session(store)
    add_session(store, tier=Tier.PRO, due_at=later(1))  # waits for its next attempt
    add_session(store, tier=Tier.PRO, wanted=Wanted.GONE)
    add_session(store, tier=Tier.PRO, state=SessionState.PROVISIONING)
    assert store.sessions.count_ahead_of(mine, NOW) == 0
    assert store.sessions.demand(NOW) == [Demand(count=1)]
    assert store.sessions.count_ahead_of(mine, later(1)) == 1


def test_sessions_with_wishes_compete_for_the_hosts_that_meet_them(store: SqlStore) -> None:
    eu, us = Wish(region="eu"), Wish(region="us", labels={"gpu": "yes"})
    store.hosts.put(samples.host(region="eu", state=HostState.LOST))
    store.hosts.put(samples.host(region="us", labels={"gpu": "yes", "disk": "big"}, slots=4))
    for wish in (eu, eu, us, Wish()):
        add_session(store, wish=wish, created_at=later(-1))
    crashed = tuple(later(-number) for number in range(9))
    add_session(store, crashes=crashed, created_at=later(-1))
    add_session(store, crashes=crashed[:1], created_at=later(-1))

    def ahead_of(wish: Wish) -> int:
        return store.sessions.count_ahead_of(samples.session(wish=wish), NOW)

    assert [ahead_of(wish) for wish in (Wish(), us, eu)] == [4, 4, 2]
    assert store.sessions.demand(NOW) == [
        Demand(count=2),
        *store.sessions.demand_ahead_of(samples.session(), NOW)[1:],
    ]
    assert {(str(each.wish), each.cold): each.count for each in store.sessions.demand(NOW)} == {
        ("", False): 2,
        ("", True): 1,
        (str(eu), False): 2,
        (str(us), False): 1,
    }
    in_queue = store.sessions.queue(NOW, 10)
    assert sorted(str(waiting.demand.wish) for waiting in in_queue if waiting.demand.wish) == [
        str(eu),
        str(eu),
        str(us),
    ]


def test_the_queue_of_one_wish_is_as_long_as_its_limit_for_that_wish_only(
    store: SqlStore,
) -> None:
    store.hosts.put(samples.host(region="eu", slots=0))
    store.hosts.put(samples.host(region="us", slots=2))
    for _ in range(3):
        add_session(store, wish=Wish(region="eu"), created_at=later(-1))

    def add(wish: Wish) -> None:
        newcomer = samples.session(user_id=ids.new_user_id(), wish=wish)
        store.sessions.add(newcomer, None, max_active=9, max_ahead=3)

    with pytest.raises(errors.NoCapacity):
        add(Wish(region="eu"))
    add(Wish())
    add(Wish(region="us"))


def test_kinds_tell_what_hosts_that_no_wish_tells_apart_have(store: SqlStore) -> None:
    labels = {"gpu": "yes"}
    first = samples.host(region="eu", labels=labels, slots=3)
    second = samples.host(region="eu", labels=labels, slots=2)
    away = samples.host(region="eu", labels=labels, slots=5, state=HostState.SUSPECT)
    for host in (first, second, away):
        store.hosts.put(host)
    placed = warm_up(store, avoid=(second.id,))
    store.hosts.change(second.id, lambda host: replace(host, shortage="its disk is full"))
    usable, unusable = sorted(store.hosts.kinds(), key=lambda kind: not kind.accepts_claims)
    assert (usable.slots, usable.free, usable.warm) == (5, 2, 1)
    assert set(usable.host_ids) == {first.id, second.id}
    assert placed.host_id == first.id
    assert (unusable.region, unusable.labels, unusable.accepts_claims) == ("eu", labels, False)
    assert (unusable.slots, unusable.free, unusable.host_ids) == (5, 0, [away.id])


def test_a_claim_leaves_the_warm_sandboxes_that_others_wait_for(store: SqlStore) -> None:
    store.hosts.put(samples.host())
    warm = warm_up(store)
    session = provisioning(add_session(store))
    assert store.sandboxes.claim(session, NOW, without=[warm.host_id]) is None
    assert store.sandboxes.claim(session, NOW, without=[ids.new_host_id()]) is not None


def test_sessions_under_way_are_due_longest_first_and_the_queue_is_not_among_them(
    store: SqlStore,
) -> None:
    add_session(store, tier=Tier.OPERATOR, created_at=later(-99))
    second = add_session(store, state=SessionState.DEPLOYING, due_at=later(-1))
    first = add_session(store, state=SessionState.DESTROYING, due_at=later(-2))
    to_end = add_session(store, wanted=Wanted.GONE)  # not started: only to be ended
    add_session(store, state=SessionState.READY, due_at=later(1))
    add_session(store, state=SessionState.DESTROYED, due_at=later(-99))
    add_session(store, state=SessionState.FAILED, due_at=later(-99))
    assert store.sessions.due(NOW, 10) == [first, second, to_end]
    assert store.sessions.due(NOW, 2) == [first, second]


def test_a_session_past_its_expiry_is_wanted_gone(store: SqlStore) -> None:
    overdue = add_session(store, state=SessionState.READY, expires_at=NOW, due_at=later(500))
    running = add_session(store, state=SessionState.READY, expires_at=later(1))
    ended = add_session(store, state=SessionState.FAILED, expires_at=later(-9))
    (expired,) = store.sessions.expire(NOW, 10)
    assert expired == replace(
        overdue, wanted=Wanted.GONE, due_at=NOW, updated_at=NOW, revision=overdue.revision + 1
    )
    assert store.sessions.get(overdue.id) == expired
    assert store.sessions.get(running.id) == running
    assert store.sessions.get(ended.id) == ended
    assert store.sessions.expire(NOW, 10) == []


def test_one_call_expires_no_more_sessions_than_its_limit(store: SqlStore) -> None:
    for age in range(5):
        add_session(store, expires_at=later(-age))
    assert len(store.sessions.expire(NOW, 3)) == 3
    assert len(store.sessions.expire(NOW, 3)) == 2


def test_a_session_that_was_read_before_its_expiry_is_stale(store: SqlStore) -> None:
    session = add_session(store, expires_at=NOW)
    store.sessions.expire(NOW, 10)
    with pytest.raises(errors.StaleWrite):
        store.sessions.save(provisioning(session))


def test_an_extension_that_is_being_written_wins_over_the_reaper(
    store: SqlStore, store_url: str
) -> None:
    session = add_session(store, state=SessionState.READY, expires_at=NOW)
    extended = replace(session, expires_at=later(3600))
    reaper_writes = threading.Event()
    expired: list[object] = ["the reaper did not finish"]
    reaper = sql_store.open_store(store_url)  # as in another process

    def watch(*arguments: Any) -> None:
        if arguments[2].startswith("BEGIN"):
            reaper_writes.set()

    def reap() -> None:
        expired[:] = reaper.sessions.expire(NOW, 10)

    event.listen(reaper._database._engine, "before_cursor_execute", watch)
    thread = threading.Thread(target=reap, daemon=True)
    try:
        with store._database.write() as connection:
            sessions.write(connection, extended)
            thread.start()
            # The reaper has read the session as expired: the extension is not committed yet.
            assert reaper_writes.wait(30)
        thread.join(30)
    finally:
        reaper.close()
    assert expired == []
    assert store.sessions.get(session.id).wanted is Wanted.RUNNING


def test_pruning_deletes_old_ended_sessions_with_their_records(store: SqlStore) -> None:
    old = add_session(store, state=SessionState.DESTROYED, updated_at=later(-10))
    failed = add_session(store, state=SessionState.FAILED, updated_at=later(-10))
    young = add_session(store, state=SessionState.DESTROYED, updated_at=later(-5))
    live = add_session(store, state=SessionState.READY, updated_at=later(-10))
    for session in (old, failed, young, live):
        store.logs.append(session.id, ["a line"], NOW)
    store.bundles.keep(samples.bundle_record(session_id=old.id), old)

    assert store.sessions.prune(later(-5)) == 2

    assert {session.id for session in store.sessions.list()} == {young.id, live.id}
    assert store.logs.tail(old.id, 10) == []
    assert len(store.logs.tail(live.id, 10)) == 1
    assert _count_rows(store, schema.events) == 4  # two for each of the two that stay
    assert len(store.bundles.list(old.id)) == 1, "bundles have a retention of their own"


def test_pruning_runs_as_many_batches_as_it_needs(store: SqlStore) -> None:
    for _ in range(sessions._BATCH + 1):
        add_session(store, state=SessionState.FAILED, updated_at=later(-10))
    assert store.sessions.prune(NOW) == sessions._BATCH + 1
    assert store.sessions.list() == []


def test_a_user_keeps_the_newest_of_the_sessions_that_have_ended(store: SqlStore) -> None:
    user, other, operator = (ids.new_user_id() for _ in range(3))

    def add(created_s: float, **changes: Any) -> SessionId:
        ended = {"state": SessionState.DESTROYED, "created_at": later(created_s), **changes}
        return add_session(store, **{"user_id": user, "updated_at": later(-10), **ended}).id

    kept = {
        add(3),
        add(2, state=SessionState.FAILED),
        add(0, state=SessionState.READY),
        add(0, updated_at=NOW),  # it has just ended
        add(0, user_id=other),
        *(add(created_s, user_id=operator, tier=Tier.OPERATOR) for created_s in range(3)),
    }
    oldest = add(1)
    store.logs.append(oldest, ["a line"], NOW)
    assert store.sessions.prune_surplus(later(-5), per_user=2, total=100) == 1
    assert {session.id for session in store.sessions.list()} == kept
    assert store.logs.tail(oldest, 10) == []
    assert store.sessions.prune_surplus(later(-5), per_user=2, total=100) == 0


def test_all_users_together_keep_the_newest(store: SqlStore) -> None:
    old, *newest = (
        add_session(
            store,
            user_id=ids.new_user_id(),
            state=SessionState.DESTROYED,
            created_at=later(number),
            updated_at=later(-10),
        ).id
        for number in range(sessions._BATCH + 3)
    )
    assert store.sessions.prune_surplus(NOW, per_user=9, total=len(newest)) == 1
    with pytest.raises(errors.NotFound):
        store.sessions.get(old)
    assert store.sessions.prune_surplus(NOW, per_user=9, total=1) == len(newest) - 1
    assert [session.id for session in store.sessions.list()] == newest[-1:]


def test_whoever_has_the_most_ended_sessions_loses_first(store: SqlStore) -> None:
    many, few, old = (ids.new_user_id() for _ in range(3))

    def add(user_id: UserId, created_s: int) -> SessionId:
        return add_session(
            store,
            user_id=user_id,
            state=SessionState.DESTROYED,
            created_at=later(created_s),
            updated_at=later(created_s),
        ).id

    only_one = add(old, -9000)
    of_few = [add(few, -number) for number in (5000, 4000)]
    of_many = [add(many, -number) for number in range(100, 0, -1)]
    assert store.sessions.prune_surplus(NOW, per_user=200, total=7) == 96
    assert {session.id for session in store.sessions.list()} == {only_one, *of_few, *of_many[-4:]}
    assert store.sessions.prune_surplus(NOW, per_user=200, total=4) == 3
    assert {session.id for session in store.sessions.list()} == {only_one, of_few[1], *of_many[-2:]}


def test_apps_that_ended_at_once_drive_out_none_that_ran_for_a_while(store: SqlStore) -> None:
    def add(user_id: UserId, created_s: int, life_s: int, version: int = 1) -> SessionId:
        return add_session(
            store,
            user_id=user_id,
            state=SessionState.DESTROYED,
            created_at=later(created_s),
            updated_at=later(created_s + life_s),
            version=version,
        ).id

    user = ids.new_user_id()
    of_user = [add(user, -90_000, 600), add(user, -80_000, 86_400 - 7000)]
    strangers = [ids.new_user_id() for _ in range(20)]
    for number, stranger in enumerate(strangers[:10]):
        add(stranger, -5000 + number, 599)
    for number, stranger in enumerate(strangers[10:]):
        add(stranger, -5000 + number, 4000, version=0)  # it waited in the queue, and never ran
    assert store.sessions.prune_surplus(NOW, per_user=9, total=2) == 20
    assert {session.id for session in store.sessions.list()} == {*of_user}
    assert store.sessions.prune_surplus(NOW, per_user=9, total=1) == 1
    assert [session.id for session in store.sessions.list()] == of_user[1:]


def test_the_gone_sandboxes_of_a_surplus_session_go_with_it(store: SqlStore) -> None:
    store.hosts.put(samples.host())
    warm_up(store)
    claim = store.sandboxes.claim(provisioning(add_session(store)), NOW)
    assert claim is not None
    session, sandbox = claim
    retire(store, sandbox)
    store.sessions.save(replace(session, state=SessionState.FAILED, updated_at=later(-10)))
    assert store.sessions.prune_surplus(NOW, per_user=0, total=9) == 1
    with pytest.raises(errors.NotFound):
        store.sandboxes.get(sandbox.id)


def test_pruning_deletes_gone_sandboxes_but_none_of_a_live_session(
    store: SqlStore,
) -> None:
    store.hosts.put(samples.host())
    gone = retire(store, warm_up(store))
    assert store.sandboxes.claim(provisioning(add_session(store)), NOW) is None
    warm_up(store)
    claim = store.sandboxes.claim(provisioning(add_session(store)), NOW)
    assert claim is not None
    _, claimed = claim
    lost = retire(store, claimed)

    assert store.sessions.prune(later(1)) == 0

    with pytest.raises(errors.NotFound):
        store.sandboxes.get(gone.id)
    assert store.sandboxes.get(lost.id) == lost


def test_a_sandbox_outlives_the_record_of_its_session(store: SqlStore) -> None:
    store.hosts.put(samples.host())
    warm_up(store)
    claim = store.sandboxes.claim(provisioning(add_session(store)), NOW)
    assert claim is not None
    session, sandbox = claim
    walk(store, sandbox, SandboxState.BROKEN)
    store.sessions.save(replace(session, state=SessionState.FAILED, updated_at=later(-10)))
    assert store.sessions.prune(NOW) == 1
    orphan = store.sandboxes.get(sandbox.id)
    assert (orphan.session_id, orphan.state) == (None, SandboxState.BROKEN)


def _count_rows(store: SqlStore, table: sa.Table) -> int:
    with store._database.read() as connection:
        return connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
