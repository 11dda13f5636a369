"""Several workers look at one session at once: one of them wins, and nothing is done twice."""

from __future__ import annotations

import pytest

from orchestrator.domain.sessions.session import Phase
from tests.unit.services.world import RaceToWrite, World


@pytest.mark.parametrize("times", [1, 3])
def test_a_lost_race_is_observed_again_and_nothing_is_done_twice(world: World, times: int) -> None:
    world.host()
    session = world.ask()
    world.warm()
    world.converge(session)
    world.report(session, Phase.DEPLOYING)
    sound, world.store = world.store, RaceToWrite(world.store, times)
    outcome = world.converge(session)
    assert outcome.steps == ("Advance",) * (times + 1) + ("Rest",)
    world.store = sound
    assert world.story(session) == "queued provisioning deploying"


@pytest.mark.parametrize("warm", [0, 2])
def test_who_loses_the_race_for_a_session_takes_one_sandbox_all_the_same(
    world: World, warm: int
) -> None:
    world.host()
    for _ in range(warm):
        world.warm()
    session = world.ask()
    world.store = RaceToWrite(world.store, times=2)
    outcome = world.converge(session)
    assert outcome.steps[:2] == ("Claim", "Claim")
    assert len(world.boxes()) == max(1, warm)
    assert [box.session_id for box in world.boxes()].count(session.id) == 1


def test_who_loses_every_race_stops_and_says_so(world: World) -> None:
    world.host()
    session = world.ask()
    world.warm()
    world.converge(session)
    world.report(session, Phase.DEPLOYING)
    world.store = RaceToWrite(world.store, times=1000)
    assert world.converge(session).waits_for == "too_many_steps"
