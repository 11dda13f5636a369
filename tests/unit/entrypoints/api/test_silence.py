"""How operators learn that many agents are silent together, or that nobody listens to them."""

from __future__ import annotations

import pytest

from orchestrator.services.agents import inbox
from tests.unit.entrypoints.api.conftest import Api
from tests.unit.services.world import World

SILENT = "4 of 4 agents are silent together"


@pytest.fixture
def four_silent_agents(world: World) -> None:
    world.add_host(slots=9)
    for _ in range(4):
        world.add_warm_sandbox()
    world.clock.advance(60)


@pytest.mark.usefixtures("four_silent_agents")
def test_ready_overview_and_metrics_say_that_many_agents_are_silent(operator: Api) -> None:
    _, ready = operator("GET", "/ready")
    assert ready["checks"]["agents"]["ok"] is False
    assert ready["checks"]["agents"]["detail"].startswith(SILENT)
    _, overview = operator("GET", "/api/admin/overview")
    assert any(warning.startswith(SILENT) for warning in overview["warnings"])
    metrics = operator.text("/metrics")
    assert "spawn_agents 4.0" in metrics
    assert "spawn_agents_overdue 4.0" in metrics
    assert "spawn_agents_silent_together 1.0" in metrics


@pytest.mark.usefixtures("four_silent_agents")
def test_all_is_well_when_they_are_heard_again(world: World, operator: Api) -> None:
    for sandbox in world.sandboxes():
        inbox.visit(world.deps, sandbox.id, "")
    assert operator("GET", "/ready")[1]["checks"]["agents"]["ok"] is True
    assert operator("GET", "/api/admin/overview")[1]["warnings"] == []
    assert "spawn_agents_silent_together 0.0" in operator.text("/metrics")


def test_a_silent_host_among_many_is_a_warning_with_its_name(world: World, operator: Api) -> None:
    quiet = world.add_host(slots=3, name="quiet", publish_address="10.0.0.3")
    world.add_host(slots=30, name="other", publish_address="10.0.0.4")
    for _ in range(30):
        world.add_warm_sandbox()
    world.clock.advance(60)
    for sandbox in world.sandboxes():
        if sandbox.host_id != quiet.id:
            inbox.visit(world.deps, sandbox.id, "")
    assert operator("GET", "/ready")[1]["checks"]["agents"]["ok"] is True
    (warning,) = operator("GET", "/api/admin/overview")[1]["warnings"]
    assert warning.startswith("quiet: many of its agents are silent")


def test_ready_says_that_the_listener_of_the_agents_does_not_answer(
    world: World, operator: Api
) -> None:
    world.listener.running = None
    check = operator("GET", "/ready")[1]["checks"]["agents"]
    assert check == {"ok": False, "detail": "the agents' listener doesn't answer"}
