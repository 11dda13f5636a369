"""What a Docker engine reports about itself, as far as sandboxes depend on it.

host_facts.py and `spawnctl doctor` parse it from `docker info`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Any

VERSION_MIN = (20, 10)
FIT_DRIVERS = frozenset({"overlay2", "overlayfs", "btrfs", "zfs"})

_LIMITS = {"MemoryLimit": "memory", "CpuCfsQuota": "CPU", "PidsLimit": "process"}
# The address pools of an engine that has none configured, from moby's daemon/libnetwork/ipamutils:
# 15 networks of 65,534 addresses and 16 of 4,094.
_DEFAULT_POOLS = (
    *((f"172.{number}.0.0/16", 16) for number in range(17, 32)),
    ("192.168.0.0/16", 20),
)


@dataclass(frozen=True, kw_only=True)
class AddressPool:
    """A range of addresses from which an engine takes the subnets of new networks."""

    base: IPv4Network
    size: int  # prefix length of each subnet


@dataclass(frozen=True, kw_only=True)
class DockerFacts:
    """One engine, as `docker info` describes it."""

    version: str  # "20.10.24+dfsg1"
    driver: str  # storage driver
    cgroup_version: str  # "1" or "2"
    limits_missing: tuple[str, ...]  # those of "memory", "CPU" and "process" that it can't set
    runtimes: frozenset[str]
    root: str  # folder that holds images and containers
    pools: tuple[AddressPool, ...]
    firewall: str = ""  # what it sets its rules with: iptables or nftables; "" if it doesn't say

    @property
    def is_too_old(self) -> bool:
        return parse_version(self.version) < VERSION_MIN


def parse_info(info: Mapping[str, Any]) -> DockerFacts:
    """Read the engine's answer to GET /info."""
    pools = [(pool["Base"], pool["Size"]) for pool in info.get("DefaultAddressPools") or ()]
    return DockerFacts(
        version=str(info["ServerVersion"]),
        driver=str(info["Driver"]),
        cgroup_version=str(info.get("CgroupVersion") or 1),
        limits_missing=tuple(name for key, name in _LIMITS.items() if not info.get(key)),
        runtimes=frozenset(info.get("Runtimes") or ()),
        root=str(info["DockerRootDir"]),
        firewall=str((info.get("FirewallBackend") or {}).get("Driver") or ""),
        pools=tuple(
            AddressPool(base=IPv4Network(base), size=int(size))
            for base, size in pools or _DEFAULT_POOLS
            if ":" not in base
        ),
    )


def parse_version(text: str) -> tuple[int, ...]:
    """Major and minor version: (20, 10) for "20.10.24+dfsg1"."""
    return tuple(int(part) for part in re.findall(r"\d+", text)[:2])
