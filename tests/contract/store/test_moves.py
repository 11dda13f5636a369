"""ports.Sandboxes: a READY session moves to another host and keeps its slug."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from orchestrator.adapters.sql_store import SqlStore
from orchestrator.domain import errors, ids
from orchestrator.domain.pool.host import Host, HostState, Wish
from orchestrator.domain.pool.sandbox import Sandbox, SandboxState
from orchestrator.domain.sessions.session import Move, Session, SessionState
from tests.contract.store.steps import add_session, provisioning, run_together, walk, warm_up
from tests.fakes import samples
from tests.fakes.samples import NOW, later


@pytest.fixture
def old_host(store: SqlStore) -> Host:
    host = samples.host(slots=1, publish_address="10.0.0.1")
    store.hosts.put(host)
    return host


@pytest.fixture
def new_host(store: SqlStore, running: Session) -> Host:
    host = samples.host(slots=5, publish_address="10.0.0.2", region="eu")
    store.hosts.put(host)
    return host


@pytest.fixture
def running(store: SqlStore, old_host: Host) -> Session:
    """A session that is READY on the old host."""
    warm_up(store)
    session = add_session(store)
    claim = store.sandboxes.claim(provisioning(session), NOW)
    assert claim is not None
    owner, _ = claim
    return store.sessions.save(replace(owner, state=SessionState.READY))


def claim_successor(store: SqlStore, running: Session) -> tuple[Session, Sandbox]:
    """Claim a warm sandbox of the new host. Returns the session and its successor sandbox."""
    warm_up(store)
    claim = store.sandboxes.claim_successor(running, NOW)
    assert claim is not None
    return claim


def slugs(store: SqlStore) -> dict[ids.SandboxId, str]:
    routes = store.sandboxes.routes().routes
    return {sandbox_id: route.slug for sandbox_id, route in routes.items()}


def test_a_successor_keeps_its_own_slug_beside_the_current_sandbox(
    store: SqlStore, running: Session, new_host: Host
) -> None:
    warm = warm_up(store)
    claim = store.sandboxes.claim_successor(running, later(5))
    assert claim is not None
    saved, successor = claim
    assert successor == replace(
        warm, state=SandboxState.CLAIMED, session_id=running.id, state_since=later(5)
    )
    assert saved == replace(running, move=Move(sandbox_id=warm.id), revision=running.revision + 1)
    assert store.sessions.get(running.id) == saved
    assert store.sandboxes.get(warm.id) == successor
    assert slugs(store) == {running.sandbox_id: running.slug, warm.id: warm.slug}
    assert not store.sandboxes.has_unpublished_routes(), "its route is published already"


def test_without_a_warm_sandbox_elsewhere_nothing_moves(
    store: SqlStore, running: Session, new_host: Host
) -> None:
    assert store.sandboxes.claim_successor(running, NOW) is None
    warm_up(store)
    wishing = replace(running, wish=Wish(region="us"))
    assert store.sandboxes.claim_successor(wishing, NOW) is None
    refused = replace(running, refused_by=(new_host.id,))
    assert store.sandboxes.claim_successor(refused, NOW) is None
    assert store.sessions.get(running.id) == running
    assert store.sandboxes.claim_successor(replace(running, wish=Wish(region="eu")), NOW)


def test_a_stale_session_gets_no_successor(
    store: SqlStore, running: Session, new_host: Host
) -> None:
    warm = warm_up(store)
    store.sessions.save(running)
    with pytest.raises(errors.StaleWrite):
        store.sandboxes.claim_successor(running, NOW)
    assert store.sandboxes.get(warm.id) == warm


def test_a_switch_moves_the_slug_and_gives_the_old_sandbox_a_new_one(
    store: SqlStore, running: Session, new_host: Host
) -> None:
    session, successor = claim_successor(store, running)
    assert running.sandbox_id is not None
    old = store.sandboxes.get(running.sandbox_id)

    saved = store.sandboxes.switch(session, later(9))

    move = Move(sandbox_id=old.id, switched_at=later(9))
    assert saved == replace(
        session, sandbox_id=successor.id, move=move, revision=session.revision + 1
    )
    assert store.sessions.get(running.id) == saved
    current = store.sandboxes.get(successor.id)
    assert current == replace(successor, slug=running.slug, routed=False)
    previous = store.sandboxes.get(old.id)
    assert previous == replace(old, slug=previous.slug, routed=False)
    assert previous.slug not in {running.slug, successor.slug}
    assert slugs(store) == {current.id: running.slug, previous.id: previous.slug}
    assert store.sandboxes.has_unpublished_routes()
    routes = store.sandboxes.routes().routes
    addresses = {route.slug: route.address for route in routes.values()}
    assert addresses[running.slug] == "10.0.0.2"


def test_a_table_from_before_a_switch_confirms_neither_route(
    store: SqlStore, running: Session, new_host: Host
) -> None:
    session, _ = claim_successor(store, running)
    published = store.sandboxes.routes().routes
    store.sandboxes.switch(session, NOW)
    assert store.sandboxes.mark_routes(published, [], NOW) == []
    changed = store.sandboxes.mark_routes(store.sandboxes.routes().routes, [], NOW)
    assert [sandbox.routed for sandbox in changed] == [True, True]


def test_a_stale_switch_changes_nothing(store: SqlStore, running: Session, new_host: Host) -> None:
    session, _ = claim_successor(store, running)
    store.sessions.save(session)
    before = (store.sandboxes.list(), slugs(store))
    with pytest.raises(errors.StaleWrite):
        store.sandboxes.switch(session, NOW)
    assert (store.sandboxes.list(), slugs(store)) == before


@pytest.mark.parametrize("side", ["old", "new"])
@pytest.mark.parametrize("state", [SandboxState.BROKEN, SandboxState.STOPPING])
def test_there_is_no_switch_from_or_to_a_lost_sandbox(
    store: SqlStore, running: Session, new_host: Host, side: str, state: SandboxState
) -> None:
    session, successor = claim_successor(store, running)
    assert running.sandbox_id is not None
    sandbox = successor if side == "new" else store.sandboxes.get(running.sandbox_id)
    walk(store, sandbox, state)
    before = store.sandboxes.list()
    with pytest.raises(errors.StaleWrite):
        store.sandboxes.switch(session, NOW)
    assert store.sandboxes.list() == before
    assert store.sessions.get(running.id) == session


def test_a_host_loss_during_a_switch_happens_before_or_after_it(
    store: SqlStore, running: Session, old_host: Host, new_host: Host
) -> None:
    """Both write the same two sandboxes and the session: they must not deadlock."""
    session, successor = claim_successor(store, running)
    store.hosts.change(new_host.id, lambda host: replace(host, state=HostState.SUSPECT))
    start = threading.Barrier(2)
    outcomes: list[str] = []

    def switch() -> None:
        start.wait()
        try:
            store.sandboxes.switch(session, NOW)
            outcomes.append("switched")
        except errors.StaleWrite:
            outcomes.append("too late")

    def lose() -> None:
        start.wait()
        store.hosts.lose(new_host.id, NOW, "no route")

    run_together([switch, lose])
    stored = store.sessions.get(running.id)
    assert store.sandboxes.get(successor.id).state is SandboxState.BROKEN
    was_switched = outcomes == ["switched"]
    assert stored.sandbox_id == (successor.id if was_switched else running.sandbox_id)
    owner = [sandbox_id for sandbox_id, slug in slugs(store).items() if slug == running.slug]
    assert owner == ([] if was_switched else [running.sandbox_id])


def test_two_sandboxes_never_hold_one_slug(
    store: SqlStore, running: Session, new_host: Host
) -> None:
    session, successor = claim_successor(store, running)
    switched = store.sandboxes.switch(session, NOW)
    live_slugs = [sandbox.slug for sandbox in store.sandboxes.list()]
    assert len(live_slugs) == len(set(live_slugs)) == 2
    assert switched.move is not None
    old = store.sandboxes.get(switched.move.sandbox_id)
    stopping = old.transition(SandboxState.STOPPING, NOW, "its session has moved")
    store.sandboxes.save(replace(stopping, session_id=None), old.state)
    store.sandboxes.mark_routes({}, [old.id], NOW)
    walk(store, store.sandboxes.get(old.id), SandboxState.GONE)
    assert [sandbox.id for sandbox in store.sandboxes.list()] == [successor.id]


def test_a_move_that_ended_before_a_switch_leaves_the_sandbox_that_the_switch_chose(
    store: SqlStore, running: Session, new_host: Host
) -> None:
    session, successor = claim_successor(store, running)
    store.sandboxes.switch(session, NOW)
    stopping = replace(successor, session_id=None).transition(SandboxState.STOPPING, NOW, "late")
    with pytest.raises(errors.StaleWrite):
        store.sandboxes.abandon(stopping, SandboxState.CLAIMED, replace(session, move=None))
    current = store.sandboxes.get(successor.id)
    assert (current.state, current.slug) == (SandboxState.CLAIMED, running.slug)
    assert store.sessions.get(session.id).sandbox_id == successor.id


def test_a_sandbox_is_abandoned_together_with_its_session(
    store: SqlStore, running: Session, new_host: Host
) -> None:
    session, successor = claim_successor(store, running)
    stopping = replace(successor, session_id=None).transition(SandboxState.STOPPING, NOW, "late")
    saved = store.sandboxes.abandon(stopping, SandboxState.CLAIMED, replace(session, move=None))
    assert store.sessions.get(session.id) == saved
    assert saved.move is None
    abandoned = store.sandboxes.get(successor.id)
    assert (abandoned.state, abandoned.session_id, abandoned.routed) == (
        SandboxState.STOPPING,
        None,
        True,
    )
    with pytest.raises(errors.StaleWrite):
        store.sandboxes.abandon(stopping, SandboxState.CLAIMED, saved)
    assert store.sessions.get(session.id) == saved
