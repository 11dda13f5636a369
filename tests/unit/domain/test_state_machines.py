"""The three state machines: their transitions, and that after are no others."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain import errors
from orchestrator.domain.pool import host as hosts
from orchestrator.domain.pool import host_fields
from orchestrator.domain.pool import sandbox as sandboxes
from orchestrator.domain.pool.host import HostState
from orchestrator.domain.pool.sandbox import SandboxState
from orchestrator.domain.sessions import session as sessions
from orchestrator.domain.sessions.session import SessionState
from tests.fakes import samples
from tests.fakes.samples import NOW, later

SESSION_TRANSITIONS = """
queued -> provisioning destroying failed
provisioning -> generating deploying ready queued destroying failed
generating -> deploying ready queued destroying failed
deploying -> ready queued destroying failed
ready -> generating deploying queued destroying failed
destroying -> destroyed
"""
SANDBOX_TRANSITIONS = """
creating -> warm claimed stopping broken
warm -> claimed stopping broken
claimed -> stopping broken
broken -> stopping
stopping -> gone
"""
HOST_TRANSITIONS = """
joining -> up suspect
up -> suspect
suspect -> up lost
lost -> joining
"""


def pairs_of(table: str) -> set[tuple[str, str]]:
    rows = [line.split(" -> ") for line in table.strip().splitlines()]
    return {(before, after) for before, others in rows for after in others.split()}


LEGAL_SESSION = pairs_of(SESSION_TRANSITIONS)
LEGAL_SANDBOX = pairs_of(SANDBOX_TRANSITIONS)
LEGAL_HOST = pairs_of(HOST_TRANSITIONS)


@pytest.mark.parametrize(("before", "after"), tuple(itertools.product(SessionState, repeat=2)))
def test_a_session_makes_the_transitions_of_its_table_and_no_others(
    before: SessionState, after: SessionState
) -> None:
    session = samples.session(state=before)
    if (before, after) in LEGAL_SESSION:
        moved = session.transition(after, later(3))
        assert (moved.state, moved.updated_at, moved.state_since) == (after, later(3), later(3))
        assert moved.history[:-1] == session.history
    else:
        with pytest.raises(errors.IllegalTransition) as caught:
            session.transition(after, later(3))
        states = " -> ".join(entry.state for entry in session.history)
        message = str(caught.value)
        assert f"from {before} to {after}" in message
        assert session.id in message
        assert f"its history: {states}" in message


@pytest.mark.parametrize(("before", "after"), tuple(itertools.product(SandboxState, repeat=2)))
def test_a_sandbox_makes_the_transitions_of_its_table_and_no_others(
    before: SandboxState, after: SandboxState
) -> None:
    sandbox = samples.sandbox(state=before, reason="its container is gone")
    if (before, after) in LEGAL_SANDBOX:
        moved = sandbox.transition(after, later(3))
        assert (moved.state, moved.state_since) == (after, later(3))
    else:
        with pytest.raises(errors.IllegalTransition) as caught:
            sandbox.transition(after, later(3))
        assert f"{sandbox.id} can't go from {before} to {after}" in str(caught.value)
        assert "since 12:00:00, its container is gone" in str(caught.value)


@pytest.mark.parametrize(("before", "after"), tuple(itertools.product(HostState, repeat=2)))
def test_a_host_makes_the_transitions_of_its_table_and_no_others(
    before: HostState, after: HostState
) -> None:
    host = samples.host(state=before, reason="no answer")
    if before is after or (before, after) in LEGAL_HOST:
        moved = host.transition(after, NOW, "another reason")
        assert (moved.state, moved.reason) == (after, "another reason")
        assert moved.state_since == (host.state_since if before is after else NOW)
    else:
        with pytest.raises(errors.IllegalTransition, match=f"from {before} to {after} .no answer"):
            host.transition(after, NOW, "")


@given(st.lists(st.sampled_from(SessionState), max_size=30))
def test_no_walk_of_a_session_makes_an_illegal_transition(wanted: list[SessionState]) -> None:
    session = samples.session()
    for seconds, state in enumerate(wanted, start=1):
        before = session
        try:
            session = session.transition(state, later(seconds))
        except errors.IllegalTransition:
            assert (before.state, state) not in LEGAL_SESSION
    states = [entry.state for entry in session.history]
    assert set(itertools.pairwise(states)) <= LEGAL_SESSION
    assert states[-1] is session.state


@given(st.lists(st.sampled_from(SandboxState), max_size=30))
def test_every_walk_of_a_sandbox_leads_forward(wanted: list[SandboxState]) -> None:
    sandbox = samples.sandbox(state=SandboxState.CREATING)
    visited = [sandbox.state]
    for state in wanted:
        try:
            sandbox = sandbox.transition(state, NOW)
        except errors.IllegalTransition:
            assert (visited[-1], state) not in LEGAL_SANDBOX
        else:
            visited.append(sandbox.state)
    assert len(visited) == len(set(visited)), "a state was entered twice"


def test_an_end_state_has_no_transitions() -> None:
    for state in sessions.ENDED:
        assert not sessions.TRANSITIONS[state]
    assert not sandboxes.TRANSITIONS[SandboxState.GONE]


def test_a_reason_stays_with_a_sandbox_until_there_is_another() -> None:
    broken = samples.sandbox(state=SandboxState.BROKEN, reason="its agent stopped polling")
    stopping = broken.transition(SandboxState.STOPPING, NOW)
    assert stopping.reason == "its agent stopped polling"
    assert broken.transition(SandboxState.STOPPING, NOW, "another").reason == "another"


@pytest.mark.parametrize("routed", [False, True])
@pytest.mark.parametrize("connected", [False, True])
@pytest.mark.parametrize("owned", [False, True])
def test_creating_ends_once_its_conditions_are_met(
    owned: bool, connected: bool, routed: bool
) -> None:
    new = samples.sandbox(
        state=SandboxState.CREATING,
        session_id="ses_x" if owned else None,
        agent_seen_at=NOW if connected else None,
        routed=routed,
    )
    finished = sandboxes.finish_creating(new, later(1))
    if connected and owned:
        assert finished.state is SandboxState.CLAIMED
    elif connected and routed:
        assert finished.state is SandboxState.WARM
    else:
        assert finished is new


@pytest.mark.parametrize("state", sorted(set(SandboxState) - {SandboxState.CREATING}))
def test_no_other_state_is_changed_by_finish_creating(state: SandboxState) -> None:
    sandbox = samples.sandbox(state=state)
    assert sandboxes.finish_creating(sandbox, later(1)) is sandbox


@pytest.mark.parametrize(
    ("memory_gib", "cpus", "slots"),
    [(4, 2, 16), (64, 2, 32), (2, 8, 8), (0.1, 1, 1), (1024, 64, 200)],
)
def test_the_slots_of_a_machine_follow_from_memory_and_cpus(
    memory_gib: float, cpus: int, slots: int
) -> None:
    assert host_fields.default_slots(memory_bytes=int(memory_gib * 1024**3), cpus=cpus) == slots


def test_a_host_with_fewer_slots_than_sandboxes_has_none_free() -> None:
    assert hosts.HostLoad(host=samples.host(slots=2), used=3, starting=0).free == 0
