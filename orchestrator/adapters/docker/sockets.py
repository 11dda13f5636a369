"""Where the processes of this machine find a host's Docker: its own socket, or a forwarded one."""

from __future__ import annotations

from pathlib import Path

from orchestrator.domain.pool.host import Host


def docker_url(links: Path, host: Host) -> str:
    """What the docker SDK connects to. `links` is the folder in which the daemon's links have a
    folder per host, mode 0700, with a socket in it, mode 0600."""
    return f"unix://{links / host.id / 'docker.sock'}" if host.remote else host.docker_url
