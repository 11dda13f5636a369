"""Checks whether Docker on a host can make another network. Pure. Used by `host`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Network

from orchestrator.domain.pool.docker_facts import AddressPool
from orchestrator.domain.pool.host_facts import HostFacts, first_overlap
from orchestrator.entrypoints.cli.findings import Finding, ok, problem, warning

_NAME = "address pools"
_CANDIDATES = ("10.201.0.0/16", "172.30.0.0/16", "192.168.128.0/17", "10.99.0.0/16")
_SIZE = 24
_COUNTED = 4096  # subnets of one pool; more count as endless


def check_address_pools(facts: HostFacts) -> Iterator[Finding]:
    """There are subnets for new networks, and the machine needs none of them for something else."""
    if facts.docker is None:
        return
    foreign = [route for route in facts.routes if route.network not in facts.networks]
    routed = [route.network for route in foreign]
    free = sum(_count_free(pool, [*facts.networks, *routed]) for pool in facts.docker.pools)
    if not free:
        yield problem(
            _NAME,
            "Docker has no subnet left for another network",
            f"docker network prune; or {_advise_pool(routed)}",
            "address_pools_exhausted",
        )
        return
    hidden = next(
        (route for route in foreign if first_overlap(route.network, facts.networks) is not None),
        None,
    )
    if hidden is not None:
        yield warning(
            _NAME,
            f"a network of Docker's overlaps {hidden.network}, which {hidden.interface} leads to",
            f"Remove that network, and {_advise_pool(routed)}",
        )
        return
    yield ok(_NAME, f"{free} subnets are free for networks")


def _count_free(pool: AddressPool, used: Sequence[IPv4Network]) -> int:
    prefix_length = max(pool.size, pool.base.prefixlen)
    used_in_pool = [network for network in used if network.overlaps(pool.base)]
    if 2 ** (prefix_length - pool.base.prefixlen) > _COUNTED:
        return _COUNTED
    return sum(
        first_overlap(subnet, used_in_pool) is None
        for subnet in pool.base.subnets(new_prefix=prefix_length)
    )


def _advise_pool(routed: Sequence[IPv4Network]) -> str:
    base = next(
        (
            candidate
            for candidate in _CANDIDATES
            if first_overlap(IPv4Network(candidate), routed) is None
        ),
        "A_FREE_NETWORK/16",
    )
    return (
        f'set {{"default-address-pools": [{{"base": "{base}", "size": {_SIZE}}}]}} in'
        " /etc/docker/daemon.json and restart Docker"
    )
