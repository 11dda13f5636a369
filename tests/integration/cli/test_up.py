"""`spawnctl up` before it starts anything."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[3]
_DEADLINE_S = 60


@pytest.mark.parametrize("setting", ["SPAWN_HTTP_PORT", "SPAWN_CONTROL_PORT"])
@pytest.mark.parametrize("options", [(), ("--detach",)], ids=["foreground", "detached"])
def test_a_port_of_another_program_is_named_with_its_setting(
    tmp_path: Path, setting: str, options: tuple[str, ...]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, socket.create_server(("", 0)) as spare:
        free_port = spare.getsockname()[1]
        spare.close()
        ports = {"SPAWN_HTTP_PORT": str(free_port), "SPAWN_CONTROL_PORT": str(free_port + 1)}
        env = {
            **{name: text for name, text in os.environ.items() if not name.startswith("SPAWN_")},
            **ports,
            "SPAWN_STATE_DIR": str(tmp_path / "state"),
            setting: str(other.getsockname()[1]),
        }
        outcome = subprocess.run(
            [sys.executable, "-m", "orchestrator.entrypoints.cli.main", "up", *options],
            check=False,
            cwd=_ROOT,
            env=env,
            capture_output=True,
            text=True,
            timeout=_DEADLINE_S,
        )
    assert outcome.returncode == 2, outcome.stdout
    assert "another program listens there" in outcome.stdout + outcome.stderr
    assert setting in outcome.stdout + outcome.stderr
    assert not (tmp_path / "state").exists(), "nothing was started"
