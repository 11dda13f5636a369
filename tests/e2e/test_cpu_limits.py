"""Sandboxes start with more CPUs, and an app has its share from READY on, whoever dies then."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import docker
import pytest

from tests.cgroups import READ_CPU_LIMIT, cpus_of
from tests.e2e.installation import Installation, installed, until

SHARE = 0.5
START = min(2, os.cpu_count() or 1)


@pytest.fixture(scope="module")
def spawn() -> Iterator[Installation]:
    """An installation whose processes the tests kill."""
    with installed(SPAWN_WARM_TARGET="2") as spawn:
        yield spawn


def limits(spawn: Installation, state: str) -> dict[str, float]:
    """The limits of the sandboxes in this state, as the kernel has them."""
    sandboxes = spawn.admin("pool")["sandboxes"]
    in_state = {item["sandbox_id"] for item in sandboxes if item["state"] == state}
    found: dict[str, float] = {}
    for sandbox_id, container in spawn.sandboxes().items():
        if sandbox_id in in_state:
            try:
                found[sandbox_id] = cpus_of(container.exec_run(READ_CPU_LIMIT).output.decode())
            except (docker.errors.APIError, ValueError):
                continue  # it has just ended
    return found


def wait_until_warm_ones_are_raised(spawn: Installation) -> None:
    until(
        lambda: sorted(limits(spawn, "warm").values()) == [START] * 2,
        60,
        f"two warm sandboxes with {START} CPUs\n{spawn.logs()}",
    )


def wait_for_share(spawn: Installation, session_id: str) -> None:
    def has_share() -> bool:
        sandbox = spawn.admin(f"sessions/{session_id}")["sandbox"]
        return limits(spawn, "claimed").get(sandbox["sandbox_id"]) == SHARE

    until(has_share, 60, f"the app to have {SHARE} CPUs\n{spawn.logs()}")


def end(spawn: Installation, session: dict[str, Any]) -> None:
    path = f"/api/sessions/{session['session_id']}"
    spawn.call_patiently("DELETE", path, key=spawn.operator_key)
    spawn.wait_for(session["session_id"], "destroyed")


@pytest.mark.parametrize(
    "victims",
    [
        [],
        ["entrypoints.jobs"],
        ["entrypoints.jobs", "entrypoints.daemon"],
    ],
    ids=["nobody dies", "the workers die", "workers and daemon die"],
)
def test_an_app_has_its_share_from_ready_on(spawn: Installation, victims: list[str]) -> None:
    wait_until_warm_ones_are_raised(spawn)
    session = spawn.create(template="notes")
    spawn.wait_for(session["session_id"], "ready")
    for victim in victims:
        spawn.kill(victim)
    wait_for_share(spawn, session["session_id"])
    end(spawn, session)


def test_the_metrics_say_that_nobody_keeps_the_limit_of_a_start(spawn: Installation) -> None:
    wait_until_warm_ones_are_raised(spawn)
    session = spawn.create(template="todo")
    spawn.wait_for(session["session_id"], "ready")
    wait_for_share(spawn, session["session_id"])
    until(lambda: "spawn_cpu_limits_late 0.0" in metrics(spawn), 30, "no limit to be late")
    assert 'spawn_host_changes_cpus{host="local"} 1.0' in metrics(spawn)
    end(spawn, session)


def metrics(spawn: Installation) -> list[str]:
    return spawn.call_patiently("GET", "/metrics", key=spawn.operator_key).text.splitlines()
