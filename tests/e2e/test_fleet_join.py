"""`make fleet` and `make fleet-down`: machines join the running SpawnAI, and leave it again."""

from __future__ import annotations

import subprocess
import uuid

from tests.e2e.installation import Installation, installed
from tests.fleet import SCRIPT

_TIMEOUT_S = 300


def _script(spawn: Installation, *arguments: str) -> str:
    result = subprocess.run(
        ["bash", str(SCRIPT), *arguments],
        env=spawn.env,
        text=True,
        capture_output=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr + spawn.logs()
    return result.stdout


def test_every_machine_of_a_fleet_joins_and_leaves() -> None:
    fleet = ("--project", f"spawnai-join-{uuid.uuid4().hex[:8]}", "--count", "2")
    with installed(SPAWN_WARM_TARGET="1") as spawn:
        try:
            _script(spawn, *fleet, "join")
            states = {host["name"]: host["state"] for host in spawn.admin("hosts")["hosts"]}
            assert states == {"local": "up", "vps1": "up", "vps2": "up"}
            _script(spawn, *fleet, "join")  # existing hosts stay
        finally:
            _script(spawn, *fleet, "leave")
        assert [host["name"] for host in spawn.admin("hosts")["hosts"]] == ["local"]
