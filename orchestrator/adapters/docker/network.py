"""The bridge network of an installation's sandboxes on one engine. DockerEngine calls it."""

from __future__ import annotations

from typing import Any

from orchestrator.adapters.docker import flags
from orchestrator.adapters.docker.flags import SandboxLimits
from orchestrator.adapters.docker.sdk import docker


def ensure(api: docker.APIClient, limits: SandboxLimits) -> list[str]:
    """Create the network unless it exists. Return a warning if it has the wrong options."""
    try:
        network = api.inspect_network(limits.network)
    except docker.errors.NotFound:
        network = _create(api, limits)
    wanted = flags.network_options(limits)
    if not network["EnableIPv6"] and wanted.items() <= network["Options"].items():
        return []
    return [
        f"Network {limits.network} has other options than sandboxes need. End its sandboxes and"
        f" run: docker network rm {limits.network}"
    ]


def _create(api: docker.APIClient, limits: SandboxLimits) -> dict[str, Any]:
    try:
        api.create_network(
            limits.network,
            driver="bridge",
            options=flags.network_options(limits),
            labels={flags.INSTANCE_LABEL: limits.instance},
            check_duplicate=True,
        )
    except docker.errors.APIError as error:
        try:  # another process of ours may have been faster
            return dict(api.inspect_network(limits.network))
        except docker.errors.NotFound:
            raise error from None
    return dict(api.inspect_network(limits.network))
