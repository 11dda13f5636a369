"""Diagnoses of a host: what each one means, and after how long it is made."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from orchestrator.domain.pool.sandbox import Sandbox, SandboxState
from orchestrator.domain.pool.sandbox_diagnosis import (
    Container,
    Diagnosis,
    Leftover,
    Orphan,
    Silent,
    Stuck,
    Unnoticed,
    Vanished,
    diagnose,
    find_loose_ends,
)
from orchestrator.domain.pool.silence import Hearing
from tests.fakes import samples
from tests.fakes.samples import later

CREATING = {"state": SandboxState.CREATING, "agent_seen_at": None, "routed": False}
OWNED = {"session_id": "ses_" + "a" * 26}
LONG_AGO = later(-9999)


def container(sandbox: Sandbox, **changes: Any) -> Container:
    fields = {"id": "c" * 64, "sandbox_id": sandbox.id, "running": True, **changes}
    return Container(**fields)


def diagnoses(
    containers: Iterable[Container],
    sandboxes: Iterable[Sandbox],
    after_s: float = 0,
    heard_since_s: float = -9999,
) -> list[Diagnosis]:
    hearing = Hearing(since=later(heard_since_s), until=later(after_s))
    return list(diagnose(containers, sandboxes, later(after_s), hearing))


@pytest.mark.parametrize("state", [SandboxState.WARM, SandboxState.CLAIMED])
def test_a_sandbox_that_runs_and_whose_agent_polls_is_well(state: SandboxState) -> None:
    sandbox = samples.sandbox(state=state)
    assert diagnoses([container(sandbox)], [sandbox]) == []


def test_a_container_that_no_live_sandbox_owns_is_an_orphan() -> None:
    orphan = container(samples.sandbox(), running=False)
    assert diagnoses([orphan], []) == [Orphan(container=orphan)]


@pytest.mark.parametrize("state", [SandboxState.WARM, SandboxState.CLAIMED])
def test_a_sandbox_without_its_container_has_vanished(state: SandboxState) -> None:
    sandbox = samples.sandbox(state=state)
    assert diagnoses([], [sandbox]) == [
        Vanished(sandbox=sandbox, reason="its container is gone", sure=False, by_host=True)
    ]


@pytest.mark.parametrize("exited", [True, False])
@pytest.mark.parametrize(
    ("note", "shown"), [("exit code 137", "exit code 137"), ("", "no reason given")]
)
def test_a_sandbox_whose_container_stopped_has_vanished(
    note: str, shown: str, exited: bool
) -> None:
    """That is sure only if it ran before: one that is only created may be about to start."""
    sandbox = samples.sandbox()
    stopped = container(sandbox, running=False, exited=exited, exit_note=note)
    reason = f"its container stopped ({shown})"
    assert diagnoses([stopped], [sandbox]) == [
        Vanished(sandbox=sandbox, reason=reason, sure=exited)
    ]


@pytest.mark.parametrize("count", [0, 1])
def test_its_creator_has_45_seconds_to_start_a_container(count: int) -> None:
    sandbox = samples.sandbox(**CREATING, container_id=None)
    containers = [container(sandbox, running=False)] * count
    assert diagnoses(containers, [sandbox], after_s=45) == []
    (diagnosis,) = diagnoses(containers, [sandbox], after_s=45.1)
    assert diagnosis == Stuck(sandbox=sandbox, reason="its container was never started")


def test_an_agent_has_45_seconds_to_connect() -> None:
    sandbox = samples.sandbox(**CREATING)
    assert diagnoses([container(sandbox)], [sandbox], after_s=45) == []
    (diagnosis,) = diagnoses([container(sandbox)], [sandbox], after_s=45.1)
    assert diagnosis == Stuck(sandbox=sandbox, reason="its agent never connected")


def test_the_time_of_an_agent_starts_when_agents_can_reach_us() -> None:
    new = samples.sandbox(**CREATING)
    old = samples.sandbox(state=SandboxState.CLAIMED, agent_seen_at=LONG_AGO)
    containers = [container(new), container(old)]
    assert diagnoses(containers, [new, old], after_s=100, heard_since_s=60) == []
    assert diagnoses(containers, [new, old], after_s=105.1, heard_since_s=60) == [
        Stuck(sandbox=new, reason="its agent never connected")
    ]
    assert len(diagnoses(containers, [new, old], after_s=135.1, heard_since_s=60)) == 2


def test_a_sandbox_that_waits_for_its_route_is_not_stuck() -> None:
    sandbox = samples.sandbox(state=SandboxState.CREATING, routed=False, agent_seen_at=later(60))
    assert diagnoses([container(sandbox)], [sandbox], after_s=70) == []


@pytest.mark.parametrize("state", [SandboxState.WARM, SandboxState.CLAIMED])
def test_an_agent_is_silent_after_75_seconds(state: SandboxState) -> None:
    sandbox = samples.sandbox(state=state, created_at=LONG_AGO)
    assert diagnoses([container(sandbox)], [sandbox], after_s=75) == []
    (diagnosis,) = diagnoses([container(sandbox)], [sandbox], after_s=75.1)
    assert diagnosis == Silent(sandbox=sandbox, reason="its agent stopped polling")


@pytest.mark.parametrize("owner", [{}, OWNED], ids=["nobody's", "a session's"])
@pytest.mark.parametrize("running", [True, False, None])
@pytest.mark.parametrize("state", [SandboxState.BROKEN, SandboxState.STOPPING])
def test_a_sandbox_that_is_being_retired_needs_no_diagnosis_whatever_runs(
    state: SandboxState, running: bool | None, owner: dict[str, str]
) -> None:
    sandbox = samples.sandbox(state=state, **owner)
    containers = [] if running is None else [container(sandbox, running=running)]
    assert diagnoses(containers, [sandbox], after_s=9999) == []


@pytest.mark.parametrize("state", [SandboxState.BROKEN, SandboxState.STOPPING])
def test_a_sandbox_that_is_being_retired_and_belongs_to_nobody_is_a_leftover(
    state: SandboxState,
) -> None:
    sandbox = samples.sandbox(state=state)
    assert list(find_loose_ends([sandbox])) == [Leftover(sandbox=sandbox)]


def test_a_stopping_sandbox_is_a_leftover_even_if_a_session_waits_for_its_end() -> None:
    sandbox = samples.sandbox(state=SandboxState.STOPPING, **OWNED)
    assert list(find_loose_ends([sandbox])) == [Leftover(sandbox=sandbox)]


def test_a_broken_sandbox_that_its_session_still_owns_is_unnoticed() -> None:
    sandbox = samples.sandbox(state=SandboxState.BROKEN, **OWNED)
    assert list(find_loose_ends([sandbox])) == [Unnoticed(sandbox=sandbox)]


def test_each_sandbox_gets_its_own_diagnosis() -> None:
    well, gone = samples.sandbox(), samples.sandbox()
    silent = samples.sandbox(agent_seen_at=LONG_AGO)
    stray = container(samples.sandbox())
    containers = [container(well), stray, container(silent)]
    assert diagnoses(containers, [well, gone, silent]) == [
        Orphan(container=stray),
        Vanished(sandbox=gone, reason="its container is gone", sure=False, by_host=True),
        Silent(sandbox=silent, reason="its agent stopped polling"),
    ]
