"""Whether Docker on a host can still make a network, by its facts. Pure. Used by checks_host."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Network

from orchestrator.domain.pool.docker_facts import AddressPool
from orchestrator.domain.pool.host_facts import HostFacts, overlapping
from orchestrator.entrypoints.cli.findings import Finding, ok, problem, warning

_NAME = "address pools"
_CANDIDATES = ("10.201.0.0/16", "172.30.0.0/16", "192.168.128.0/17", "10.99.0.0/16")
_SIZE = 24
_COUNTED = 4096  # subnets of one pool; more are as good as endless


def pools(facts: HostFacts) -> Iterator[Finding]:
    """Free subnets for new networks, and none that the machine needs for something else."""
    if facts.docker is None:
        return
    foreign = [route for route in facts.routes if route.network not in facts.networks]
    routed = [route.network for route in foreign]
    free = sum(_free(pool, [*facts.networks, *routed]) for pool in facts.docker.pools)
    if not free:
        yield problem(
            _NAME,
            "Docker has no subnet left for another network",
            f"docker network prune; or {_other_pool(routed)}",
            "address_pools_exhausted",
        )
        return
    hidden = next(
        (route for route in foreign if overlapping(route.network, facts.networks) is not None),
        None,
    )
    if hidden is not None:
        yield warning(
            _NAME,
            f"a network of Docker's overlaps {hidden.network}, which {hidden.interface} leads to",
            f"Remove that network, and {_other_pool(routed)}",
        )
        return
    yield ok(_NAME, f"{free} subnets are free for networks")


def _free(pool: AddressPool, taken: Sequence[IPv4Network]) -> int:
    size = max(pool.size, pool.base.prefixlen)
    inside = [one for one in taken if one.overlaps(pool.base)]
    if 2 ** (size - pool.base.prefixlen) > _COUNTED:
        return _COUNTED
    return sum(overlapping(one, inside) is None for one in pool.base.subnets(new_prefix=size))


def _other_pool(routed: Sequence[IPv4Network]) -> str:
    base = next(
        (one for one in _CANDIDATES if overlapping(IPv4Network(one), routed) is None),
        "A_FREE_NETWORK/16",
    )
    return (
        f'set {{"default-address-pools": [{{"base": "{base}", "size": {_SIZE}}}]}} in'
        " /etc/docker/daemon.json and restart Docker"
    )
