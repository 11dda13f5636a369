"""Silence means something only while somebody listens."""

from __future__ import annotations

from orchestrator.services.agents import presence
from tests.unit.services.world import World


def test_silence_counts_from_the_start_of_the_process_that_listens(world: World) -> None:
    ears = presence.Ears(since=world.clock.now())
    presence.listening(world.deps, "first")
    began = ears.heard_since(world.deps)
    world.clock.advance(5)
    presence.listening(world.deps, "first")
    assert ears.heard_since(world.deps) == began


def test_while_nobody_listens_no_agent_is_silent(world: World) -> None:
    ears = presence.Ears(since=world.clock.now())
    presence.listening(world.deps, "first")
    ears.heard_since(world.deps)
    world.clock.advance(300)
    assert ears.heard_since(world.deps) == world.clock.now()


def test_a_restarted_process_gives_the_agents_their_time(world: World) -> None:
    ears = presence.Ears(since=world.clock.now())
    presence.listening(world.deps, "first")
    ears.heard_since(world.deps)
    world.clock.advance(20)
    presence.listening(world.deps, "second")
    assert ears.heard_since(world.deps) == world.clock.now()
