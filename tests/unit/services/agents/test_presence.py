"""An agent's silence counts only while spawn-api listens."""

from __future__ import annotations

from orchestrator.services.agents import presence
from tests.unit.services.world import World


def test_silence_counts_from_the_start_of_the_process_that_listens(world: World) -> None:
    watch = presence.ListenerWatch(since=world.clock.now())
    presence.renew_presence(world.deps, "first")
    since = watch.heard_since(world.deps)
    world.clock.advance(5)
    presence.renew_presence(world.deps, "first")
    assert watch.heard_since(world.deps) == since


def test_while_nobody_listens_no_silence_counts(world: World) -> None:
    watch = presence.ListenerWatch(since=world.clock.now())
    presence.renew_presence(world.deps, "first")
    watch.heard_since(world.deps)
    world.clock.advance(300)
    assert watch.heard_since(world.deps) == world.clock.now()


def test_after_a_restart_the_agents_get_time_to_call(world: World) -> None:
    watch = presence.ListenerWatch(since=world.clock.now())
    presence.renew_presence(world.deps, "first")
    watch.heard_since(world.deps)
    world.clock.advance(20)
    presence.renew_presence(world.deps, "second")
    assert watch.heard_since(world.deps) == world.clock.now()
