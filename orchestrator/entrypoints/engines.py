"""Docker engines as a worker sees them. Not in bootstrap: the api process never talks to Docker,
and need not hold the SDK in memory."""

from __future__ import annotations

import functools

from orchestrator import bootstrap
from orchestrator.adapters.docker import sockets
from orchestrator.adapters.docker.engine import DockerEngines
from orchestrator.config import Settings


def for_worker(settings: Settings) -> DockerEngines:
    """On this machine's sockets, the forwarded ones among them. Firewalls are the leader's."""
    return DockerEngines(
        bootstrap.sandbox_limits(settings),
        url_of=functools.partial(sockets.docker_url, settings.places.links_folder),
    )
