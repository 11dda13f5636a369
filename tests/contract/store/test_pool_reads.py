"""ports.PoolReads: what passes over large pools read."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.adapters.sql_store import SqlStore
from orchestrator.domain import ids
from orchestrator.domain.pool.host import Drain, HostState
from orchestrator.domain.sessions.session import SessionState
from tests.contract.store.steps import add_session, provisioning, retire, warm_up
from tests.fakes import samples
from tests.fakes.samples import NOW, later


@pytest.fixture
def host_id(store: SqlStore) -> ids.HostId:
    host = samples.host(slots=6)
    store.hosts.put(host)
    return host.id


def test_all_hosts_are_named_in_the_order_of_the_list(store: SqlStore, host_id: ids.HostId) -> None:
    store.hosts.put(samples.host(created_at=later(9)))
    store.hosts.put(samples.host(created_at=later(-9)))
    assert store.pool.host_ids() == [host.id for host in store.hosts.list()]


def test_hosts_are_read_by_id(store: SqlStore, host_id: ids.HostId) -> None:
    other = samples.host()
    store.hosts.put(other)
    assert store.pool.hosts([other.id, ids.new_host_id()]) == [other]
    assert store.pool.hosts([]) == ()


def test_a_host_is_restless_unless_it_is_simply_up_and_has_the_image(
    store: SqlStore, host_id: ids.HostId
) -> None:
    for field, value in (
        ("state", HostState.LOST),
        ("drain", Drain.WAIT),
        ("image", "spawnai/sandbox:old"),
    ):
        assert store.pool.restless_hosts(samples.IMAGE) == []
        before = store.hosts.get(host_id)
        store.hosts.put(replace(before, **{field: value}))
        assert store.pool.restless_hosts(samples.IMAGE) == [host_id], field
        store.hosts.put(before)
    store.hosts.put(replace(before, cordoned=True))
    assert store.pool.restless_hosts(samples.IMAGE) == []


def test_late_agents_are_those_that_should_have_been_heard(
    store: SqlStore, host_id: ids.HostId
) -> None:
    warm = warm_up(store, NOW)
    session = add_session(store, slug=ids.new_slug(), state=SessionState.QUEUED)
    assert store.sandboxes.claim(provisioning(session), NOW) is not None
    warm = warm_up(store, NOW)
    creating = store.sandboxes.place(samples.new_sandbox(), NOW)
    warm_up(store, later(50))
    retire(store, warm_up(store, NOW))
    late = store.pool.late_agents(later(10))
    assert {warm.id, creating.id} < late.keys()
    assert (len(late), set(late.values())) == (3, {host_id})
    assert store.pool.late_agents(NOW) == {}


def test_a_sandbox_that_is_claimed_is_named_with_the_revision_of_its_session(
    store: SqlStore, host_id: ids.HostId
) -> None:
    warm_up(store, NOW)
    retire(store, warm_up(store, NOW))
    session = add_session(store, slug=ids.new_slug(), state=SessionState.QUEUED)
    claimed = store.sandboxes.claim(provisioning(session), NOW)
    assert claimed is not None
    session, sandbox = claimed
    warm_up(store, NOW)
    assert store.pool.assigned() == {sandbox.id: session.revision}
    saved = store.sessions.save(replace(session, due_at=later(5)))
    assert store.pool.assigned() == {sandbox.id: saved.revision}
    assert saved.revision != session.revision
