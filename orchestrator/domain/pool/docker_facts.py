"""What a Docker engine says of itself, as far as sandboxes depend on it. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Any

VERSION_MIN = (20, 10)
FIT_DRIVERS = frozenset({"overlay2", "overlayfs", "btrfs", "zfs"})

_LIMITS = {"MemoryLimit": "memory", "CpuCfsQuota": "CPU", "PidsLimit": "process"}
# Of an engine that was told none: moby's daemon/libnetwork/ipamutils (17 of 65,534 addresses and
# 16 of 4,094).
_POOLS_OF_DOCKER = (
    *((f"172.{number}.0.0/16", 16) for number in range(17, 32)),
    ("192.168.0.0/16", 20),
)


@dataclass(frozen=True, kw_only=True)
class AddressPool:
    """Where an engine takes the subnets of new networks from."""

    base: IPv4Network
    size: int  # prefix length of each


@dataclass(frozen=True, kw_only=True)
class DockerFacts:
    """One engine, as `docker info` describes it."""

    version: str  # "20.10.24+dfsg1"
    driver: str  # of the storage
    cgroup_version: str  # "1" or "2"
    limits_missing: tuple[str, ...]  # of "memory", "CPU" and "process", in people's words
    runtimes: frozenset[str]
    root: str  # folder of images and containers
    pools: tuple[AddressPool, ...]

    @property
    def too_old(self) -> bool:
        return version_of(self.version) < VERSION_MIN


def of_info(info: Mapping[str, Any]) -> DockerFacts:
    """Of the engine's answer to GET /info."""
    pools = [(one["Base"], one["Size"]) for one in info.get("DefaultAddressPools") or ()]
    return DockerFacts(
        version=str(info["ServerVersion"]),
        driver=str(info["Driver"]),
        cgroup_version=str(info.get("CgroupVersion") or 1),
        limits_missing=tuple(name for key, name in _LIMITS.items() if not info.get(key)),
        runtimes=frozenset(info.get("Runtimes") or ()),
        root=str(info["DockerRootDir"]),
        pools=tuple(
            AddressPool(base=IPv4Network(base), size=int(size))
            for base, size in pools or _POOLS_OF_DOCKER
            if ":" not in base
        ),
    )


def version_of(text: str) -> tuple[int, ...]:
    """(20, 10) of "20.10.24+dfsg1"."""
    return tuple(int(part) for part in re.findall(r"\d+", text)[:2])
