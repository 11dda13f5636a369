"""The bare counterpart: `docker run` of the runtime image with a sandbox's flags; `docker rm`."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import orchestrator
from bench.sessions import await_200
from tests.e2e.installation import Installation, free_ports, runtime_image

_START_CPUS = min(2, os.cpu_count() or 1)  # what a sandbox starts with
SERVER = ("python3", "-m", "http.server", "3000")  # the least that answers with 200
_CATALOG = Path(orchestrator.__file__).parent / "catalog"
_COPY_AND_RUN = 'cp -r /srv/app/. /app && exec "$@"'
_LABEL = "ai.spawn.bench=1"


@dataclass(frozen=True, kw_only=True)
class Command:
    """What runs in a bare container, and what its `docker run` needs for that."""

    argv: Sequence[str]
    flags: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Bare:
    """Bare containers in the network of an installation, with the flags of a running sandbox."""

    spawn: Installation

    def start(self, command: Command = Command(argv=SERVER)) -> float:
        """Seconds from `docker run` to the first 200. The container is removed afterwards."""
        with self.running(command) as duration_s:
            return duration_s

    @contextmanager
    def running(self, command: Command = Command(argv=SERVER)) -> Iterator[float]:
        """Run a container during the block. Yields the seconds to its first 200."""
        (port,) = free_ports(1)
        name = f"spawn-bench-{secrets.token_hex(4)}"
        flags = (*self._flags(), *command.flags, "-p", f"127.0.0.1:{port}:3000")
        program, *arguments = command.argv
        argv = ["docker", "run", "-d", "--name", name, *flags, "--entrypoint", program]
        started_at = time.perf_counter()
        try:
            subprocess.run([*argv, runtime_image(), *arguments], check=True, capture_output=True)
            await_200(port, "localhost")
            yield time.perf_counter() - started_at
        finally:
            subprocess.run(["docker", "rm", "-f", name], check=False, capture_output=True)

    def together(self, count: int) -> list[float]:
        """The seconds to the first 200 of containers that are started at the same time."""
        with ThreadPoolExecutor(count) as clients:
            return list(clients.map(lambda _: self.start(), range(count)))

    def _flags(self) -> Sequence[str]:
        """The flags of a sandbox, as the docker CLI spells them."""
        folder, network = self.spawn.state_dir / "agent", f"spawnai-{self.spawn.instance}"
        return [
            *("--user", "2100021000:2100021000", "--read-only", "--init", "--cap-drop", "ALL"),
            *("--tmpfs", "/tmp:rw,nosuid,nodev,noexec,size=64m"),
            *("--tmpfs", "/app:rw,nosuid,nodev,noexec,size=256m,uid=2100021000"),
            *("--security-opt", "no-new-privileges", "--memory", "1g", "--memory-swap", "1g"),
            *("--cpu-period", "200000", "--cpu-quota", str(_START_CPUS * 200_000)),
            *("--cpu-shares", "512", "--pids-limit", "256"),
            *("--dns", "127.0.0.1", "--network", network),
            *("--ulimit", "nofile=4096:4096", "--ulimit", "core=0", "--workdir", "/app"),
            *("--log-opt", "max-size=5m", "--log-opt", "max-file=2", "--hostname", "sandbox"),
            *("--volume", f"{folder}:/run/spawn:ro", "--label", _LABEL),
        ]


def template(name: str) -> Command:
    """The app of a template, started as its manifest says, from a folder of its own."""
    folder = _CATALOG / name
    manifest = json.loads((folder / "spawn.json").read_text())
    mount = ("--volume", f"{folder}:/srv/app:ro")
    if manifest["kind"] == "static":
        return Command(argv=(*SERVER, "--directory", "/srv/app"), flags=mount)
    argv = ("sh", "-c", _COPY_AND_RUN, "sh", *manifest["start"])
    return Command(
        argv=argv,
        flags=(*mount, "--env", "HOST=0.0.0.0", "--env", "PORT=3000", "--env", "HOME=/tmp"),
    )
