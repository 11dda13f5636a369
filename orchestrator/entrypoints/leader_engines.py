"""Links to all hosts, and their Docker through these: for the leading daemon and the last sweep.
Not in engines.py: workers need not hold an SSH library in memory.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from orchestrator import bootstrap
from orchestrator.adapters.docker import sockets
from orchestrator.adapters.docker.egress import Runner
from orchestrator.adapters.docker.engine import DockerEngines
from orchestrator.adapters.hosts.fleet import FleetSettings, SshFleet
from orchestrator.config import Settings
from orchestrator.domain.pool.host import Host


def fleet(settings: Settings) -> SshFleet:
    """The links to all hosts. Only one process may hold them."""
    return SshFleet(
        FleetSettings(
            instance=bootstrap.sandbox_limits(settings).instance,
            key=settings.places.ssh_key,
            links=settings.places.links_folder,
            agent_socket=settings.places.agent_socket,
        )
    )


def docker(settings: Settings, links: SshFleet) -> DockerEngines:
    """As engines.for_worker, with firewalls set on the hosts themselves, through their links."""

    def runner_of(host: Host) -> Runner:
        return functools.partial(links.run, host)

    def guests_of(host: Host) -> Sequence[str] | None:
        if not host.remote:
            return None  # published on loopback, where nobody else comes
        return settings.pool.proxies or [address for address in [links.seen_from(host)] if address]

    return DockerEngines(
        bootstrap.sandbox_limits(settings),
        url_of=functools.partial(sockets.docker_url, settings.places.links_folder),
        runner_of=runner_of,
        guests_of=guests_of,
    )
