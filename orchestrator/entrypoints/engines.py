"""Docker engines as the processes that talk to Docker see them. Not in bootstrap: the api process
never does, and need not hold the SDK in memory."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from orchestrator import bootstrap
from orchestrator.adapters import docker_sockets
from orchestrator.adapters.docker_engine import DockerEngines
from orchestrator.adapters.egress import Runner
from orchestrator.adapters.fleet import FleetSettings, SshFleet
from orchestrator.config import Settings
from orchestrator.domain.host import Host


def for_worker(settings: Settings) -> DockerEngines:
    """On this machine's sockets, the forwarded ones among them. Firewalls are the leader's."""
    return DockerEngines(
        bootstrap.sandbox_limits(settings),
        url_of=functools.partial(docker_sockets.docker_url, settings.links_folder),
    )


def fleet(settings: Settings) -> SshFleet:
    """The links to all hosts. Only one process may hold them."""
    return SshFleet(
        FleetSettings(
            instance=bootstrap.sandbox_limits(settings).instance,
            key=settings.ssh_key,
            links=settings.links_folder,
            agent_socket=settings.agent_socket,
        )
    )


def for_leader(settings: Settings, links: SshFleet) -> DockerEngines:
    """The same, with firewalls set on the hosts themselves, through their links."""

    def runner_of(host: Host) -> Runner:
        return functools.partial(links.run, host)

    def guests_of(host: Host) -> Sequence[str] | None:
        if not host.remote:
            return None  # published on loopback, where nobody else comes
        return settings.proxies or [address for address in [links.seen_from(host)] if address]

    return DockerEngines(
        bootstrap.sandbox_limits(settings),
        url_of=functools.partial(docker_sockets.docker_url, settings.links_folder),
        runner_of=runner_of,
        guests_of=guests_of,
    )
