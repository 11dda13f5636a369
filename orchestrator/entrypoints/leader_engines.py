"""The links to all hosts, and their Docker engines through these links. The leading daemon and
sweep.py call it.

This is not in bootstrap: the other processes need not load Docker's SDK and an SSH library.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from orchestrator import bootstrap
from orchestrator.adapters.docker import egress, sockets
from orchestrator.adapters.docker.egress import Runner
from orchestrator.adapters.docker.engine import DockerEngines
from orchestrator.adapters.hosts.fleet import FleetSettings, SshFleet
from orchestrator.config import Settings
from orchestrator.domain.pool.host import Host


def make_fleet(settings: Settings, check_term: Callable[[], None] = lambda: None) -> SshFleet:
    """The links to all hosts, not opened yet. Only one process at a time may open them.

    `check_term` raises errors.TermOver if that is another one now.
    """
    return SshFleet(
        FleetSettings(
            instance=bootstrap.sandbox_limits(settings).instance,
            key=settings.places.ssh_key,
            links=settings.places.links_folder,
            agent_folder=settings.places.agent_folder,
            check_term=check_term,
        ),
        bootstrap.make_clock(settings),
    )


def make_engines(
    settings: Settings, fleet: SshFleet, check_term: Callable[[], None] = lambda: None
) -> DockerEngines:
    """Docker engines of all hosts. They set firewall rules on each host through its link."""

    def runner_of(host: Host) -> Runner:
        return functools.partial(fleet.run, host)

    def allowlist_of(host: Host) -> Sequence[str] | None:
        if not host.is_remote:
            return None  # its ports are published on loopback: other machines can't reach them
        return egress.proxy_addresses(settings.pool.proxies, fleet.our_address(host))

    return DockerEngines(
        bootstrap.sandbox_limits(settings),
        url_of=functools.partial(sockets.docker_url, settings.places.links_folder),
        runner_of=runner_of,
        allowlist_of=allowlist_of,
        sockets_of=fleet.sockets_of,
        check_term=check_term,
    )
