"""Sandboxes whose CPU limit may be the wrong one, and what is recorded of limits."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.domain import ids
from orchestrator.domain.pool.cpu_limits import CpuUse
from orchestrator.domain.pool.sandbox import Sandbox, SandboxState
from orchestrator.domain.sessions.session import Session, SessionState
from orchestrator.ports import Store
from tests.contract.store.steps import add_session, provisioning, walk, warm_up
from tests.fakes import samples
from tests.fakes.samples import NOW, later


@pytest.fixture
def host_id(store: Store) -> ids.HostId:
    """A host whose engine is known to change limits."""
    host = samples.host(slots=9, cpus=2, changes_cpus=True)
    store.hosts.put(host)
    return host.id


def warm(store: Store, *, raised: bool) -> Sandbox:
    sandbox = warm_up(store, raised=raised)
    store.sandboxes.set_container(sandbox.id, f"container-{sandbox.id}")
    return sandbox


def claimed(store: Store, *states: SessionState, raised: bool = True) -> tuple[Session, Sandbox]:
    """A session that has taken these states with a sandbox, each a second later."""
    warm(store, raised=raised)
    claim = store.sandboxes.claim(provisioning(add_session(store)), NOW)
    assert claim is not None
    session, sandbox = claim
    for number, state in enumerate(states, 1):
        session = store.sessions.save(session.transition(state, later(number)))
    return session, sandbox


def uses(store: Store) -> dict[ids.SandboxId, CpuUse]:
    return {holder.sandbox_id: holder.use for holder in store.sandboxes.cpu_holders()}


def test_what_a_host_has_and_can_is_stored(store: Store, host_id: ids.HostId) -> None:
    for can in (None, False, True):
        store.hosts.change(host_id, lambda host, can=can: replace(host, changes_cpus=can, cpus=64))
        host = store.hosts.get(host_id)
        assert (host.cpus, host.changes_cpus) == (64, can)


@pytest.mark.parametrize(("can", "raised"), [(True, True), (False, False), (None, False)])
def test_a_sandbox_is_placed_as_raised_only_where_its_limit_can_be_lowered(
    store: Store, host_id: ids.HostId, can: bool | None, raised: bool
) -> None:
    store.hosts.change(host_id, lambda host: replace(host, changes_cpus=can))
    sandbox = store.sandboxes.place(samples.new_sandbox(raised=True), NOW)
    assert sandbox.raised is store.sandboxes.get(sandbox.id).raised is raised
    assert not store.sandboxes.place(samples.new_sandbox(), NOW).raised


def test_a_warm_sandbox_is_named_if_it_is_not_raised(store: Store, host_id: ids.HostId) -> None:
    plain = warm(store, raised=False)
    warm(store, raised=True)
    assert uses(store) == {plain.id: CpuUse.WAITING}
    store.sandboxes.set_raised(plain.id, raised=True)
    assert uses(store) == {}


def test_a_sandbox_that_works_is_named_with_the_time_of_its_present_work(
    store: Store, host_id: ids.HostId
) -> None:
    _, first = claimed(store, raised=False)
    _, second = claimed(store, SessionState.GENERATING)
    holders = {holder.sandbox_id: holder for holder in store.sandboxes.cpu_holders()}
    assert {holder.use for holder in holders.values()} == {CpuUse.WORKING}
    assert (holders[first.id].raised, holders[first.id].since) == (False, NOW)
    assert (holders[second.id].raised, holders[second.id].since) == (True, later(1))
    assert holders[first.id].container_id == f"container-{first.id}"
    assert holders[first.id].host_id == host_id


def test_an_app_that_is_ready_is_named_as_long_as_it_is_raised(
    store: Store, host_id: ids.HostId
) -> None:
    _, sandbox = claimed(store, SessionState.READY)
    assert uses(store) == {sandbox.id: CpuUse.SERVING}
    store.sandboxes.set_raised(sandbox.id, raised=False)
    assert uses(store) == {}


def test_an_app_that_is_changed_works(store: Store, host_id: ids.HostId) -> None:
    _, sandbox = claimed(store, SessionState.READY, SessionState.GENERATING, raised=False)
    assert uses(store) == {sandbox.id: CpuUse.WORKING}


def test_change_after_change_is_named_with_the_time_of_the_first(
    store: Store, host_id: ids.HostId
) -> None:
    changes = [SessionState.READY, SessionState.DEPLOYING] * 2
    claimed(store, *changes, raised=False)
    (holder,) = store.sandboxes.cpu_holders()
    assert holder.since == NOW, "a second of READY is no rest"


def test_a_successor_works_until_its_session_switches_to_it(
    store: Store, host_id: ids.HostId
) -> None:
    session, _ = claimed(store, SessionState.READY, raised=False)
    warm(store, raised=True)
    claim = store.sandboxes.claim_successor(session, later(5))
    assert claim is not None
    moving, successor = claim
    (holder,) = store.sandboxes.cpu_holders()
    assert (holder.sandbox_id, holder.use, holder.since) == (
        successor.id,
        CpuUse.WORKING,
        later(5),
    )
    store.sandboxes.switch(moving, later(6))
    assert uses(store) == {successor.id: CpuUse.SERVING}


def test_sandboxes_that_end_and_those_without_a_container_are_not_named(
    store: Store, host_id: ids.HostId
) -> None:
    warm_up(store)
    session, sandbox = claimed(store, SessionState.READY)
    walk(store, replace(sandbox, session_id=session.id), SandboxState.BROKEN)
    assert uses(store) == {}


def test_a_write_of_the_sandbox_leaves_its_limit_alone(store: Store, host_id: ids.HostId) -> None:
    _, sandbox = claimed(store)
    store.sandboxes.set_raised(sandbox.id, raised=False)
    broken = sandbox.transition(SandboxState.BROKEN, NOW, "a test said so")
    assert not store.sandboxes.save(broken, SandboxState.CLAIMED).raised
