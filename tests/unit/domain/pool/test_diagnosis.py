"""What is wrong on a host: each diagnosis, and the time that is given before it is made."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from orchestrator.domain.pool.diagnosis import (
    Container,
    Diagnosis,
    Leftover,
    Orphan,
    Silent,
    Stuck,
    Unnoticed,
    Vanished,
    diagnose,
    loose,
)
from orchestrator.domain.pool.sandbox import Sandbox, SandboxState
from tests.fakes import samples
from tests.fakes.samples import later

CREATING = {"state": SandboxState.CREATING, "agent_seen_at": None, "routed": False}
OWNED = {"session_id": "ses_" + "a" * 26}
LONG_AGO = later(-9999)


def container(sandbox: Sandbox, **changes: Any) -> Container:
    fields = {"id": "c" * 64, "sandbox_id": sandbox.id, "running": True, **changes}
    return Container(**fields)


def found(
    containers: Iterable[Container],
    sandboxes: Iterable[Sandbox],
    after_s: float = 0,
    heard_since_s: float = -9999,
) -> list[Diagnosis]:
    return list(diagnose(containers, sandboxes, later(after_s), later(heard_since_s)))


@pytest.mark.parametrize("state", [SandboxState.WARM, SandboxState.CLAIMED])
def test_a_sandbox_that_runs_and_whose_agent_calls_is_well(state: SandboxState) -> None:
    box = samples.sandbox(state=state)
    assert found([container(box)], [box]) == []


def test_a_container_that_no_live_sandbox_owns_is_an_orphan() -> None:
    orphan = container(samples.sandbox(), running=False)
    assert found([orphan], []) == [Orphan(container=orphan)]


@pytest.mark.parametrize("state", [SandboxState.WARM, SandboxState.CLAIMED])
def test_a_sandbox_without_its_container_has_vanished(state: SandboxState) -> None:
    box = samples.sandbox(state=state)
    assert found([], [box]) == [Vanished(sandbox=box, reason="its container is gone", sure=False)]


@pytest.mark.parametrize("exited", [True, False])
@pytest.mark.parametrize(("note", "said"), [("exit code 137", "exit code 137"), ("", "no note")])
def test_a_sandbox_whose_container_stopped_has_vanished(note: str, said: str, exited: bool) -> None:
    """For sure if it ran before: one that is only created may be about to start."""
    box = samples.sandbox()
    stopped = container(box, running=False, exited=exited, exit_note=note)
    reason = f"its container stopped ({said})"
    assert found([stopped], [box]) == [Vanished(sandbox=box, reason=reason, sure=exited)]


@pytest.mark.parametrize("containers", [0, 1])
def test_a_maker_has_45_seconds_to_start_a_container(containers: int) -> None:
    box = samples.sandbox(**CREATING, container_id=None)
    there = [container(box, running=False)] * containers
    assert found(there, [box], after_s=45) == []
    (diagnosis,) = found(there, [box], after_s=45.1)
    assert diagnosis == Stuck(sandbox=box, reason="its container was never started")


def test_an_agent_has_45_seconds_to_dial_home() -> None:
    box = samples.sandbox(**CREATING)
    assert found([container(box)], [box], after_s=45) == []
    (diagnosis,) = found([container(box)], [box], after_s=45.1)
    assert diagnosis == Stuck(sandbox=box, reason="its agent never dialled home")


def test_agents_that_could_not_reach_us_are_given_their_time_from_when_they_could() -> None:
    new = samples.sandbox(**CREATING)
    old = samples.sandbox(state=SandboxState.CLAIMED, agent_seen_at=LONG_AGO)
    there = [container(new), container(old)]
    assert found(there, [new, old], after_s=100, heard_since_s=60) == []
    assert found(there, [new, old], after_s=105.1, heard_since_s=60) == [
        Stuck(sandbox=new, reason="its agent never dialled home")
    ]
    assert len(found(there, [new, old], after_s=135.1, heard_since_s=60)) == 2


def test_an_agent_that_waits_for_its_route_is_not_called_stuck() -> None:
    box = samples.sandbox(state=SandboxState.CREATING, routed=False, agent_seen_at=later(60))
    assert found([container(box)], [box], after_s=70) == []


@pytest.mark.parametrize("state", [SandboxState.WARM, SandboxState.CLAIMED])
def test_an_agent_is_silent_after_75_seconds(state: SandboxState) -> None:
    box = samples.sandbox(state=state, created_at=LONG_AGO)
    assert found([container(box)], [box], after_s=75) == []
    (diagnosis,) = found([container(box)], [box], after_s=75.1)
    assert diagnosis == Silent(sandbox=box, reason="its agent fell silent")


@pytest.mark.parametrize("owner", [{}, OWNED], ids=["nobody's", "a session's"])
@pytest.mark.parametrize("running", [True, False, None])
@pytest.mark.parametrize("state", [SandboxState.BROKEN, SandboxState.STOPPING])
def test_what_is_being_retired_needs_no_diagnosis_whatever_runs_there(
    state: SandboxState, running: bool | None, owner: dict[str, str]
) -> None:
    box = samples.sandbox(state=state, **owner)
    there = [] if running is None else [container(box, running=running)]
    assert found(there, [box], after_s=9999) == []


@pytest.mark.parametrize("state", [SandboxState.BROKEN, SandboxState.STOPPING])
def test_what_is_being_retired_and_belongs_to_nobody_is_a_leftover(state: SandboxState) -> None:
    box = samples.sandbox(state=state)
    assert list(loose([box])) == [Leftover(sandbox=box)]


def test_a_stopping_sandbox_of_a_session_is_left_to_its_session() -> None:
    assert list(loose([samples.sandbox(state=SandboxState.STOPPING, **OWNED)])) == []


def test_a_broken_sandbox_that_its_session_still_holds_is_pointed_out_until_it_acts() -> None:
    box = samples.sandbox(state=SandboxState.BROKEN, **OWNED)
    assert list(loose([box])) == [Unnoticed(sandbox=box)]


def test_one_sick_sandbox_is_not_mistaken_for_another() -> None:
    well, gone = samples.sandbox(), samples.sandbox()
    silent = samples.sandbox(agent_seen_at=LONG_AGO)
    stray = container(samples.sandbox())
    there = [container(well), stray, container(silent)]
    assert found(there, [well, gone, silent]) == [
        Orphan(container=stray),
        Vanished(sandbox=gone, reason="its container is gone", sure=False),
        Silent(sandbox=silent, reason="its agent fell silent"),
    ]
