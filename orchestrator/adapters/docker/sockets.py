"""Where processes of this machine reach a host's Docker: at its own or a forwarded socket."""

from __future__ import annotations

from pathlib import Path

from orchestrator.domain.pool.host import Host


def docker_url(links: Path, host: Host) -> str:
    """Return the URL that the Docker SDK connects to.

    `links` is the folder in which the daemon's links keep one folder per host (mode 0700), each
    with the forwarded socket (mode 0600).
    """
    return f"unix://{links / host.id / 'docker.sock'}" if host.is_remote else host.docker_url
