"""`make fleet` and `make fleet-down`: machines join the SpawnAI that runs, and leave it again."""

from __future__ import annotations

import subprocess
import uuid

from tests.e2e.installation import Installation, installed
from tests.fleet import SCRIPT

_WITHIN_S = 300


def _script(one: Installation, *words: str) -> str:
    done = subprocess.run(
        ["bash", str(SCRIPT), *words],
        env=one.env,
        text=True,
        capture_output=True,
        timeout=_WITHIN_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr + one.logs()
    return done.stdout


def test_every_machine_of_a_fleet_joins_and_leaves() -> None:
    fleet = ("--project", f"spawnai-join-{uuid.uuid4().hex[:8]}", "--count", "2")
    with installed(SPAWN_WARM_TARGET="1") as one:
        try:
            _script(one, *fleet, "join")
            there = {host["name"]: host["state"] for host in one.admin("hosts")["hosts"]}
            assert there == {"local": "up", "vps1": "up", "vps2": "up"}
            _script(one, *fleet, "join")  # what is a host already stays one
        finally:
            _script(one, *fleet, "leave")
        assert [host["name"] for host in one.admin("hosts")["hosts"]] == ["local"]
