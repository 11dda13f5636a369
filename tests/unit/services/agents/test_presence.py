"""An agent's silence counts only while its calls could reach us."""

from __future__ import annotations

from collections.abc import Collection

from orchestrator.domain.pool.sandbox import Sandbox
from orchestrator.services.agents import inbox, presence
from tests.fakes.memory import remembers
from tests.unit.services.world import World


def test_silence_counts_from_the_start_of_the_process_that_listens(world: World) -> None:
    host = world.add_host()
    watch = presence.ListenerWatch(since=world.clock.now())
    watch.look(world.deps)
    start = world.clock.now()
    world.clock.advance(5)
    watch.look(world.deps)
    assert watch.hearing_of(host).since == start
    assert watch.hearing_of(host).until == world.clock.now()


def test_while_nobody_listens_no_silence_counts(world: World) -> None:
    host = world.add_host()
    watch = presence.ListenerWatch(since=world.clock.now())
    watch.look(world.deps)
    world.clock.advance(300)
    world.listener.running = None
    watch.look(world.deps)
    assert watch.hearing_of(host).since == world.clock.now()


def test_silence_after_the_last_look_does_not_count(world: World) -> None:
    """A comparison may begin long after the look, if other hosts are slow."""
    host = world.add_host()
    watch = presence.ListenerWatch(since=world.clock.now())
    watch.look(world.deps)
    looked_at = world.clock.now()
    world.clock.advance(300)
    assert watch.hearing_of(host).until == looked_at


def test_what_happened_while_nobody_looked_does_not_count(world: World) -> None:
    """The machine was suspended, and so were the agents on it."""
    host = world.add_host()
    watch = presence.ListenerWatch(since=world.clock.now())
    watch.look(world.deps)
    world.clock.advance(300)
    watch.look(world.deps)
    assert watch.hearing_of(host).since == world.clock.now()


def test_after_a_restart_the_agents_get_time_to_call(world: World) -> None:
    host = world.add_host()
    watch = presence.ListenerWatch(since=world.clock.now())
    watch.look(world.deps)
    world.clock.advance(20)
    world.listener.running = "agents-2"
    watch.look(world.deps)
    assert watch.hearing_of(host).since == world.clock.now()


def test_a_host_whose_silence_excuses_nobody_any_more_is_forgotten(world: World) -> None:
    silent_host = world.add_host(slots=4)
    world.add_host(slots=13)
    sandboxes = [world.add_warm_sandbox() for _ in range(17)]
    heard = [sandbox for sandbox in sandboxes if sandbox.host_id != silent_host.id]
    watch = presence.ListenerWatch(since=world.clock.now())
    look_for(world, watch, 60, heard)
    assert remembers(watch, silent_host.id)
    look_for(world, watch, 75, sandboxes)
    assert watch.hearing_of(silent_host).since < world.clock.now()
    look_for(world, watch, 10, sandboxes)
    assert not remembers(watch, silent_host.id)


def look_for(
    world: World, watch: presence.ListenerWatch, seconds: int, heard: Collection[Sandbox]
) -> None:
    """Let time pass in steps of 5 s, and look at each."""
    for _ in range(0, seconds, 5):
        world.clock.advance(5)
        for sandbox in heard:
            inbox.visit(world.deps, sandbox.id, "")
        watch.look(world.deps)
