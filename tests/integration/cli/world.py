"""Runs the real spawnctl as a process, with its own settings, for the tests of the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fakes.cli.answers import KEY

ROOT = Path(__file__).parents[3]
DEADLINE_S = 60


@dataclass(frozen=True, kw_only=True)
class Result:
    """Exit code and output of a spawnctl that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Spawnctl:
    """Runs spawnctl with the settings of one test: `spawnctl("status", "--json")`."""

    def __init__(self, state_dir: Path, port: int, *, key: str = KEY) -> None:
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.upper().startswith(("SPAWN_", "ANTHROPIC_"))
        }
        self.environment = kept | {
            "SPAWN_STATE_DIR": str(state_dir),
            "SPAWN_HTTP_PORT": str(port),
            "SPAWN_API_KEY": key,
            "COLUMNS": "80",
            # The environment's proxy is not for the control plane of this machine.
            "HTTP_PROXY": "http://127.0.0.1:1",
        }

    def __call__(self, *arguments: str, **changes: str) -> Result:
        """Run to the end. `changes` are variables of its environment."""
        process = subprocess.run(
            command(arguments),
            cwd=ROOT,
            env=self.environment | changes,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        assert "Traceback" not in process.stderr
        assert KEY not in process.stdout + process.stderr
        return Result(code=process.returncode, out=process.stdout, err=process.stderr)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """The same, for tests that signal it."""
        return subprocess.Popen(
            command(arguments),
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A test run in the background ignores SIGINT, and so would everything it starts.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no threads
        )


def command(arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "orchestrator.entrypoints.cli.main", *arguments]
