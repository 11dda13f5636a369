"""What a host reports about itself, parsed from the output of common commands. Pure.

adapters.hosts.survey runs a script over SSH and parses all of it. services.pool.host_life asks
again and again for the figures that change: free disk and free memory.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from orchestrator.contract import json_bounds
from orchestrator.domain.pool import docker_facts
from orchestrator.domain.pool.docker_facts import DockerFacts

_SECTION = re.compile(r"^@@ (\w+)$", re.MULTILINE)
_MACHINE_ID = re.compile(r"[0-9a-f]{32}")
_DIGITS = r"\d{1,18}"
"""Of a number that makes sense: all that count bytes, files or seconds are shorter."""
_VALUES_MAX = 20_000
"""Of the JSON that `docker info` prints. It has a few hundred."""


@dataclass(frozen=True, kw_only=True)
class DiskSpace:
    """The space on one file system."""

    folder: str
    free_bytes: int
    inodes: int  # 0 if the file system has no fixed number of them, as btrfs
    free_inodes: int


@dataclass(frozen=True, kw_only=True)
class Route:
    """A network, and the interface through which the machine reaches it."""

    interface: str
    network: IPv4Network


@dataclass(frozen=True, kw_only=True)
class HostFacts:
    """One machine, as one survey over SSH found it."""

    user: str  # the one we log in as
    root: bool  # whether that is root
    sudo: bool  # whether it may become root without a password; true for root
    os: str  # "Debian GNU/Linux 12 (bookworm)", for people
    machine_id: str  # "" if it has none
    clock_s: float | None  # its clock, in seconds since 1970
    memory_bytes: int | None
    available_bytes: int | None
    cpus: int
    docker: DockerFacts | None
    docker_error: str  # why `docker` is None, in the words of the docker command
    docker_client: bool  # whether the docker command is installed
    disk: DiskSpace | None  # where Docker keeps its data
    sshd: Mapping[str, str]  # effective settings of sshd, by lower-case name; {} if unknown
    sshd_descriptors: int | None  # how many our connection's process may have; None: unknown
    iptables: str  # "" if it is usable, else its error
    tables: Mapping[str, int]  # how many rules each kind of iptables has: legacy and nft
    bridged: bool | None  # whether bridged traffic passes the firewall; None: module not loaded
    addresses: tuple[IPv4Address, ...]  # its own
    routes: tuple[Route, ...]
    networks: tuple[IPv4Network, ...]  # the subnets of Docker's networks
    our_address: str  # our own address, as the machine sees it


@dataclass(frozen=True, kw_only=True)
class Survey:
    """The facts about a machine, and what we tried from here."""

    facts: HostFacts
    clock_skew_s: float | None  # its clock minus ours
    forwarding: str  # "" if sockets are forwarded both ways, else what was refused
    publishing: str  # "" if we reach a port there, else why not
    published_tried: bool  # False: the machine has no program that could listen on a port


def parse(text: str) -> HostFacts:
    """Parse the output of the script in adapters.hosts.survey. Missing sections mean unknown."""
    sections = _sections(text)
    os_release = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', sections.get("os", ""), re.MULTILINE))
    user_id, _, user = sections.get("user", "").partition(" ")
    machine = sections.get("machine", "")
    docker, docker_error = _docker(sections.get("docker", ""))
    return HostFacts(
        user=user,
        root=user_id == "0",
        sudo=sections.get("sudo") == "yes",
        os=os_release.get("PRETTY_NAME", "unknown"),
        machine_id=machine if _MACHINE_ID.fullmatch(machine) else "",
        clock_s=_number(sections.get("clock", "")),
        memory_bytes=_meminfo(sections.get("meminfo", ""), "MemTotal"),
        available_bytes=free_memory_bytes(sections.get("meminfo", "")),
        cpus=int(_number(sections.get("cpus", "")) or 1),
        docker=docker,
        docker_error=docker_error,
        docker_client=sections.get("client") == "yes",
        disk=_disk_space(sections.get("disk", ""), sections.get("inodes", "")),
        sshd=_settings(sections.get("sshd", "")),
        sshd_descriptors=_descriptors(sections.get("descriptors", "")),
        iptables=_error_of(sections.get("iptables", "")),
        tables=parse_tables(sections.get("tables", "")),
        bridged={"1": True, "0": False}.get(sections.get("bridged", "")),
        addresses=_addresses(sections.get("addresses", "")),
        routes=_routes(sections.get("routes", "")),
        networks=_networks(sections.get("networks", "")),
        our_address=sections.get("peer", ""),
    )


def free_disk_bytes(output: str) -> int | None:
    """Free bytes of the first file system in the output of `df -Pk`. None: it lists none."""
    match = re.search(rf"^\S.*?\s+\d+\s+\d+\s+({_DIGITS})\s+\d+%\s", output, re.MULTILINE)
    return None if match is None else int(match[1]) * 1024


def free_memory_bytes(output: str) -> int | None:
    """Bytes available without swapping, by the text of `/proc/meminfo`. None: it doesn't say."""
    return _meminfo(output, "MemAvailable")


def parse_tables(text: str) -> Mapping[str, int]:
    """From lines such as `nft 12`: the rules of each kind of iptables."""
    return {
        kind: int(count)
        for kind, count in re.findall(rf"^(legacy|nft) ({_DIGITS})$", text, re.MULTILINE)
    }


def _sections(text: str) -> Mapping[str, str]:
    """The text below each line "@@ NAME", by name."""
    _, *parts = _SECTION.split(text)
    return {name: body.strip() for name, body in zip(parts[::2], parts[1::2], strict=True)}


def _meminfo(text: str, name: str) -> int | None:
    match = re.search(rf"^{name}:\s+({_DIGITS}) kB", text, re.MULTILINE)
    return None if match is None else int(match[1]) * 1024


def _docker(text: str) -> tuple[DockerFacts | None, str]:
    """The facts, or the error that prevented them.

    `docker info` may print warnings first. If the engine doesn't answer, it still prints JSON, with
    the reasons under "ServerErrors".
    """
    messages = []
    for line in text.splitlines():
        info = _json_object(line)
        if info is None:
            messages.append(line)
            continue
        try:
            if info.get("ServerErrors"):
                messages += map(str, info["ServerErrors"])
            elif info.get("ServerVersion"):
                return docker_facts.parse_info(info), ""
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            messages.append(f"docker info answers oddly: {error!r}")
    return None, " ".join(" ".join(messages).split())[:300]


def _json_object(line: str) -> Mapping[str, Any] | None:
    try:
        data = json_bounds.decode(line.encode("utf-8", "replace"), _VALUES_MAX)
    except ValueError:
        return None
    return data if isinstance(data, dict) else None


def _disk_space(disk: str, inodes: str) -> DiskSpace | None:
    """From `df -Pk` and `df -Pi` of the same folder. The last line of `disk` names the folder."""
    free_bytes = free_disk_bytes(disk)
    if free_bytes is None:
        return None
    # For a file system without a fixed number of inodes df prints 0 0 0 and a hyphen.
    line = rf"^\S.*?\s+({_DIGITS})\s+\d+\s+({_DIGITS})\s+(?:\d+%|-)\s"
    match = re.search(line, inodes, re.MULTILINE)
    return DiskSpace(
        folder=disk.splitlines()[-1],
        free_bytes=free_bytes,
        inodes=int(match[1]) if match else 0,
        free_inodes=int(match[2]) if match else 0,
    )


def _settings(text: str) -> Mapping[str, str]:
    """From `sshd -T`: a lower-case name and its value per line. {} if it printed an error."""
    settings = dict(re.findall(r"^([a-z0-9]+) (.+)$", text, re.MULTILINE))
    return settings if "maxsessions" in settings else {}


def _descriptors(text: str) -> int | None:
    return sys.maxsize if text == "unlimited" else int(_number(text) or 0) or None


def _error_of(text: str) -> str:
    """The output of a command that failed. The last line of `text` is its exit code."""
    *lines, code = text.split("\n")
    return "" if code == "0" else " ".join(" ".join(lines).split())[:200] or f"exit code {code}"


def _addresses(text: str) -> tuple[IPv4Address, ...]:
    """The machine's own addresses, from /proc/net/fib_trie: each leaf is followed by its kind."""
    addresses = re.findall(r"\|-- ([\d.]+)\s*\n\s*/32 host LOCAL", text)
    return tuple(sorted({network.network_address for network in _networks(" ".join(addresses))}))


def _routes(text: str) -> tuple[Route, ...]:
    """From /proc/net/route: hexadecimal, in the byte order of the machine, here little-endian.

    The default route leads everywhere, so it is left out.
    """
    routes = []
    for line in text.splitlines()[1:]:
        try:
            interface, target, *_, mask = line.split()[:8]
            network = IPv4Network((_from_hex(target), int(mask, 16).bit_count()), strict=False)
        except ValueError:
            continue  # no line of a route
        if network.prefixlen:
            routes.append(Route(interface=interface, network=network))
    return tuple(routes)


def _from_hex(text: str) -> int:
    return int.from_bytes(bytes.fromhex(text), "little")


def _networks(text: str) -> tuple[IPv4Network, ...]:
    networks = []
    for word in text.split():
        with contextlib.suppress(ValueError):  # IPv6, or no network at all
            networks.append(IPv4Network(word, strict=False))
    return tuple(networks)


def _number(text: str) -> float | None:
    match = re.match(rf"{_DIGITS}(\.\d+)?(?!\d)", text)
    return float(match[0]) if match else None


def first_overlap(network: IPv4Network, others: Sequence[IPv4Network]) -> IPv4Network | None:
    """The first of the other networks that shares addresses with `network`."""
    return next((other for other in others if other.overlaps(network)), None)
