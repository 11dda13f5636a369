"""Whether an app answers at its own address while its published port doesn't, as its host sees it.

DockerEngine calls it. Nothing but Docker lies between the host and the two, so that the published
port alone is at fault. The look is that of adapters.proxy.port_looks, by bash, which hosts have.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Mapping, Sequence

from orchestrator.adapters.docker import answers
from orchestrator.adapters.docker.egress import Runner
from orchestrator.domain.ids import SandboxId
from orchestrator.domain.pool.published_ports import Endpoint

_AT_ONCE = 50  # sandboxes; the caller asks again for the others
_APP_PORT = 3000
_SCRIPT = r"""
look() {
    exec 3<>"/dev/tcp/$1/$2" && printf '?\r\n\r\n' >&3 && read -r -t 3 -n 1 <&3 && echo "$1 $2"
}
for endpoint; do look ${endpoint/,/ } & done 2>/dev/null
wait
"""
_LIMIT_S = "8"  # a connection that is dropped takes longer: nobody is told of it


def addresses_of(items: object) -> Mapping[SandboxId, str]:
    """The own addresses of the sandboxes in the answer to GET /containers/json."""
    addresses = {}
    assert isinstance(items, list)  # parse_containers has seen it
    for item, container in zip(items, map(answers.parse_container, items), strict=True):
        address = _address_in(item)
        if container is not None and container.running and address:
            addresses[container.sandbox_id] = address
    return addresses


def find_unpublished(
    run: Runner, published: Mapping[SandboxId, Endpoint], addresses: Mapping[SandboxId, str]
) -> Collection[SandboxId]:
    """The sandboxes that answer at their own address only. Those that nobody reached are left out.

    `published` are the endpoints of their published ports. Raises errors.Temporary.
    """
    asked = [sandbox_id for sandbox_id in published if sandbox_id in addresses][:_AT_ONCE]
    inside = {sandbox_id: (addresses[sandbox_id], _APP_PORT) for sandbox_id in asked}
    outside = {sandbox_id: published[sandbox_id] for sandbox_id in asked}
    open_endpoints = _look(run, [*inside.values(), *outside.values()])
    return {
        sandbox_id
        for sandbox_id in asked
        if inside[sandbox_id] in open_endpoints and outside[sandbox_id] not in open_endpoints
    }


def _look(run: Runner, endpoints: Sequence[Endpoint]) -> Collection[Endpoint]:
    """The endpoints that answer. None of them if the host can't tell."""
    if not endpoints:
        return ()
    argv = ["timeout", _LIMIT_S, "bash", "-c", _SCRIPT, "look"]
    outcome = run([*argv, *(f"{address},{port}" for address, port in endpoints)])
    lines = set(outcome.output.splitlines()) if outcome.code == 0 else set()
    return [endpoint for endpoint in endpoints if f"{endpoint[0]} {endpoint[1]}" in lines]


def _address_in(item: object) -> str:
    """The address of a container in its only network; "" if there is none."""
    try:
        (network,) = item["NetworkSettings"]["Networks"].values()  # type: ignore[index]  # foreign
        return str(ipaddress.IPv4Address(network["IPAddress"]))
    except (LookupError, TypeError, ValueError, AttributeError):
        return ""
