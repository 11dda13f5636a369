"""What the loops ask of the database while nothing happens."""

from __future__ import annotations

import pytest

from orchestrator.domain.pool.sandbox import SandboxState
from orchestrator.loops.loop import LoopSpec
from tests.unit.loops.running import loop_specs
from tests.unit.loops.statements import count_statements
from tests.unit.services.world import World

APPS = 3
PASSES = 10
# Loops that find something to do now and then: their own tests count that.
BUSY_AT_REST = {"prune"}


@pytest.fixture(name="specs")
def _specs(world: World) -> list[LoopSpec]:
    """The loops of a pool with a few apps and a full warm pool, after some passes of each."""
    world.add_host(slots=20)
    for _ in range(APPS):
        world.run_session(world.create_session())
    for _ in range(world.policy.warm_target):
        world.add_warm_sandbox()
    specs = [spec for spec in loop_specs(world) if spec.name not in BUSY_AT_REST]
    for _ in range(3):
        for spec in specs:
            spec.run()
        world.clock.advance(1)
    assert len(world.sandboxes(SandboxState.WARM)) == world.policy.warm_target
    assert world.sandboxes(SandboxState.CREATING, SandboxState.STOPPING) == []
    return specs


def test_a_dozen_statements_a_second_are_enough(world: World, specs: list[LoopSpec]) -> None:
    statements = count_statements(world, "")
    per_second = {}
    for spec in specs:
        statements.clear()
        for _ in range(PASSES):
            assert spec.run() == "", f"{spec.name} has something to do"
        per_second[spec.name] = len(statements) / PASSES / (spec.rest_s or spec.every_s)
    assert sum(per_second.values()) <= 12, per_second


def test_no_loop_writes_while_nothing_happens(world: World, specs: list[LoopSpec]) -> None:
    statements = count_statements(world, "")
    for spec in specs:
        spec.run()
    assert [text for text in statements if not text.startswith("SELECT")] == []


def test_loops_that_events_wake_rest(specs: list[LoopSpec]) -> None:
    assert [spec.name for spec in specs if spec.topics and spec.rest_s is None] == []
    assert all(spec.rest_s >= spec.every_s for spec in specs if spec.rest_s is not None)
