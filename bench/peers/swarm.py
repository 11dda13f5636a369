"""A service of Docker Swarm: the engine's own way to keep an app running."""

from __future__ import annotations

import contextlib
import secrets
import subprocess
import time
from collections.abc import Iterator

from bench.peers.peer import APP, Unavailable
from bench.sessions import await_200
from tests.e2e.installation import free_ports, runtime_image

NAME = "Docker Swarm, a service"
_LIMITS = (
    *("--limit-cpu", "0.5", "--limit-memory", "1g", "--limit-pids", "256"),
    *("--read-only", "--init", "--cap-drop", "ALL", "--user", "2100021000:2100021000"),
    *("--mount", "type=tmpfs,target=/tmp,tmpfs-size=67108864"),
    *("--mount", "type=tmpfs,target=/app,tmpfs-size=268435456"),
)


class Swarm:
    """The swarm of this machine alone."""

    def start(self) -> float:
        (port,) = free_ports(1)
        name = f"spawn-bench-{secrets.token_hex(4)}"
        publish = f"mode=host,published={port},target=3000"  # without the swarm's own balancer
        argv = ["docker", "service", "create", "--detach", "--no-resolve-image", "--name", name]
        argv += [*_LIMITS, "--restart-condition", "none", "--publish", publish]
        program, *arguments = APP
        started_at = time.perf_counter()
        try:
            _run(*argv, "--entrypoint", program, runtime_image(), *arguments)
            await_200(port, "localhost")
            return time.perf_counter() - started_at
        finally:
            subprocess.run(["docker", "service", "rm", name], check=False, capture_output=True)


@contextlib.contextmanager
def running() -> Iterator[Swarm]:
    """Make this engine a swarm on loopback during the block. Raises Unavailable."""
    state = _run("docker", "info", "--format", "{{.Swarm.LocalNodeState}}").strip()
    if state != "inactive":
        raise Unavailable(f"this machine's Docker is in a swarm already ({state})")
    bridge = "docker_gwbridge"  # made by the swarm, which doesn't remove it
    had_bridge = bridge in _run("docker", "network", "ls", "--format", "{{.Name}}").split()
    try:
        try:
            address = ("--advertise-addr", "127.0.0.1", "--listen-addr", "127.0.0.1:2377")
            _run("docker", "swarm", "init", *address)
        except subprocess.CalledProcessError as error:
            raise Unavailable(f"this machine's Docker makes no swarm: {error.stderr}") from error
        yield Swarm()
    finally:
        leave = ["docker", "swarm", "leave", "--force"]
        subprocess.run(leave, check=False, capture_output=True)
        if not had_bridge:
            remove = ["docker", "network", "rm", bridge]
            subprocess.run(remove, check=False, capture_output=True)


def _run(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout
