"""The three state machines: what moves there are, and that there are no others."""

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

SESSION_MOVES = """
queued -> provisioning destroying failed
provisioning -> generating deploying ready queued destroying failed
generating -> deploying ready queued destroying failed
deploying -> ready queued destroying failed
ready -> generating deploying queued destroying failed
destroying -> destroyed
"""
SANDBOX_MOVES = """
creating -> warm claimed stopping broken
warm -> claimed stopping broken
claimed -> stopping broken
broken -> stopping
stopping -> gone
"""
HOST_MOVES = """
joining -> up suspect
up -> suspect
suspect -> up lost
lost -> joining
"""


def pairs_of(table: str) -> set[tuple[str, str]]:
    rows = [line.split(" -> ") for line in table.strip().splitlines()]
    return {(here, there) for here, others in rows for there in others.split()}


LEGAL_SESSION = pairs_of(SESSION_MOVES)
LEGAL_SANDBOX = pairs_of(SANDBOX_MOVES)
LEGAL_HOST = pairs_of(HOST_MOVES)


@pytest.mark.parametrize(("here", "there"), tuple(itertools.product(SessionState, repeat=2)))
def test_a_session_makes_the_moves_of_its_table_and_no_others(
    here: SessionState, there: SessionState
) -> None:
    session = samples.session(state=here)
    if (here, there) in LEGAL_SESSION:
        moved = session.transition(there, later(3))
        assert (moved.state, moved.updated_at, moved.state_since) == (there, later(3), later(3))
        assert moved.history[:-1] == session.history
    else:
        with pytest.raises(errors.IllegalMove) as caught:
            session.transition(there, later(3))
        story = " -> ".join(entered.state for entered in session.history)
        said = str(caught.value)
        assert f"from {here} to {there}" in said
        assert session.id in said
        assert f"it went {story}" in said


@pytest.mark.parametrize(("here", "there"), tuple(itertools.product(SandboxState, repeat=2)))
def test_a_sandbox_makes_the_moves_of_its_table_and_no_others(
    here: SandboxState, there: SandboxState
) -> None:
    sandbox = samples.sandbox(state=here, reason="its container is gone")
    if (here, there) in LEGAL_SANDBOX:
        moved = sandbox.transition(there, later(3))
        assert (moved.state, moved.state_since) == (there, later(3))
    else:
        with pytest.raises(errors.IllegalMove) as caught:
            sandbox.transition(there, later(3))
        assert f"{sandbox.id} can't go from {here} to {there}" in str(caught.value)
        assert "since 12:00:00, its container is gone" in str(caught.value)


@pytest.mark.parametrize(("here", "there"), tuple(itertools.product(HostState, repeat=2)))
def test_a_host_makes_the_moves_of_its_table_and_no_others(
    here: HostState, there: HostState
) -> None:
    host = samples.host(state=here, reason="no answer")
    if here is there or (here, there) in LEGAL_HOST:
        moved = host.transition(there, NOW, "another reason")
        assert (moved.state, moved.reason) == (there, "another reason")
        assert moved.state_since == (host.state_since if here is there else NOW)
    else:
        with pytest.raises(errors.IllegalMove, match=f"from {here} to {there} .no answer"):
            host.transition(there, NOW, "")


@given(st.lists(st.sampled_from(SessionState), max_size=30))
def test_no_walk_of_a_session_passes_an_illegal_move(wanted: list[SessionState]) -> None:
    session = samples.session()
    for seconds, state in enumerate(wanted, start=1):
        before = session
        try:
            session = session.transition(state, later(seconds))
        except errors.IllegalMove:
            assert (before.state, state) not in LEGAL_SESSION
    story = [entered.state for entered in session.history]
    assert set(itertools.pairwise(story)) <= LEGAL_SESSION
    assert story[-1] is session.state


@given(st.lists(st.sampled_from(SandboxState), max_size=30))
def test_every_walk_of_a_sandbox_leads_forward(wanted: list[SandboxState]) -> None:
    sandbox = samples.sandbox(state=SandboxState.CREATING)
    passed = [sandbox.state]
    for state in wanted:
        try:
            sandbox = sandbox.transition(state, NOW)
        except errors.IllegalMove:
            assert (passed[-1], state) not in LEGAL_SANDBOX
        else:
            passed.append(sandbox.state)
    assert len(passed) == len(set(passed)), "it came back to where it had been"


def test_what_has_ended_never_moves_again() -> None:
    for state in sessions.ENDED:
        assert not sessions.TRANSITIONS[state]
    assert not sandboxes.TRANSITIONS[SandboxState.GONE]


def test_a_reason_stays_with_a_sandbox_until_there_is_another() -> None:
    broken = samples.sandbox(state=SandboxState.BROKEN, reason="its agent fell silent")
    stopping = broken.transition(SandboxState.STOPPING, NOW)
    assert stopping.reason == "its agent fell silent"
    assert broken.transition(SandboxState.STOPPING, NOW, "why not").reason == "why not"


@pytest.mark.parametrize("routed", [False, True])
@pytest.mark.parametrize("dialled", [False, True])
@pytest.mark.parametrize("owned", [False, True])
def test_a_new_sandbox_settles_when_its_facts_are_in(
    owned: bool, dialled: bool, routed: bool
) -> None:
    new = samples.sandbox(
        state=SandboxState.CREATING,
        session_id="ses_x" if owned else None,
        agent_seen_at=NOW if dialled else None,
        routed=routed,
    )
    settled = sandboxes.settle(new, later(1))
    if dialled and owned:
        assert settled.state is SandboxState.CLAIMED
    elif dialled and routed:
        assert settled.state is SandboxState.WARM
    else:
        assert settled is new


@pytest.mark.parametrize("state", sorted(set(SandboxState) - {SandboxState.CREATING}))
def test_nothing_but_a_new_sandbox_settles(state: SandboxState) -> None:
    sandbox = samples.sandbox(state=state)
    assert sandboxes.settle(sandbox, later(1)) is sandbox


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
