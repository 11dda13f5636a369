"""A container that Docker can't remove, because its shim hangs, holds up nobody else."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import docker

from tests.e2e.installation import Installation, installed

NEWCOMERS = 10
STATES = ("ready", "failed")


def test_ten_sessions_become_ready_while_a_removal_hangs() -> None:
    with installed(SPAWN_SLOTS="16", SPAWN_WORKERS="2") as spawn:
        stuck = spawn.create(template="notes")["session_id"]
        spawn.wait_for(stuck, "ready")
        with hanging_shim(only_claimed_sandbox(spawn)):
            spawn.call_patiently("DELETE", f"/api/sessions/{stuck}", key=spawn.operator_key)
            newcomers = [spawn.create(template="kanban")["session_id"] for _ in range(NEWCOMERS)]
            final = [spawn.wait_for(session_id, *STATES) for session_id in newcomers]
            assert [status["status"] for status in final] == ["ready"] * NEWCOMERS
            for status in final:
                assert spawn.call_app(status["url"]).status == 200
            assert spawn.status(stuck)["status"] == "destroying"
            depth = spawn.admin("pool")["queues"]
            assert sum(depth.values()) <= NEWCOMERS, "nudges pile up"

        for session_id in newcomers:
            spawn.call_patiently("DELETE", f"/api/sessions/{session_id}", key=spawn.operator_key)
        for session_id in (stuck, *newcomers):
            spawn.wait_for(session_id, "destroyed")


def only_claimed_sandbox(spawn: Installation) -> str:
    """The container id of the only sandbox that belongs to a session."""
    (claimed,) = [
        sandbox["sandbox_id"]
        for sandbox in spawn.admin("pool")["sandboxes"]
        if sandbox["state"] == "claimed"
    ]
    return str(spawn.sandboxes()[claimed].id)


@contextlib.contextmanager
def hanging_shim(container_id: str) -> Iterator[None]:
    """Stop the process between Docker and this container: whatever Docker asks it hangs."""
    pid = docker.APIClient().inspect_container(container_id)["State"]["Pid"]
    shim = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(shim, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(shim, signal.SIGCONT)
