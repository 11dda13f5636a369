"""What a host says of itself, read from the output of common commands. Pure.

services/pool/hosts.py asks for what changes (room), adapters/hosts/survey.py for everything.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from orchestrator.domain.pool import docker_facts
from orchestrator.domain.pool.docker_facts import DockerFacts

_SECTION = re.compile(r"^@@ (\w+)$", re.MULTILINE)
_MACHINE_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, kw_only=True)
class Room:
    """Of one file system."""

    folder: str
    free_bytes: int
    inodes: int  # 0 where there is no fixed number of them (btrfs)
    free_inodes: int


@dataclass(frozen=True, kw_only=True)
class Route:
    """A network that a machine reaches by an interface."""

    interface: str
    network: IPv4Network


@dataclass(frozen=True, kw_only=True)
class HostFacts:
    """One machine, as one look at it over SSH found it."""

    user: str  # that we log in as
    root: bool  # whether that is root
    sudo: bool  # whether it may become root without a password; root may
    os: str  # "Debian GNU/Linux 12 (bookworm)", for people
    os_ids: frozenset[str]  # what it is and what it is like: {"ubuntu", "debian"}
    machine_id: str  # "" when it has none
    clock_s: float | None  # its clock, seconds since 1970
    memory_bytes: int | None
    available_bytes: int | None
    cpus: int
    docker: DockerFacts | None
    docker_said: str  # why there is no `docker`, in the words of its command
    docker_client: bool  # whether its `docker` command is there
    room: Room | None  # of Docker's folder
    sshd: Mapping[str, str]  # settings that are in force, by lower-case name; {} if unknown
    iptables: str  # "" when usable, else what was said
    bridged: bool | None  # whether bridged traffic passes the firewall; None while not loaded
    addresses: tuple[IPv4Address, ...]  # of its own
    routes: tuple[Route, ...]
    networks: tuple[IPv4Network, ...]  # of Docker's networks
    seen_from: str  # our address as it sees it


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What one look found, and what was tried from here."""

    facts: HostFacts
    clock_skew_s: float | None  # its clock minus ours
    forwarding: str  # "" when sockets are forwarded both ways, else what was refused
    publishing: str  # "" when we reach a port there, else why not
    published_tried: bool  # False when there is nothing to listen with


def parse(text: str) -> HostFacts:
    """Of what adapters/hosts/survey.py's script prints. Whatever is missing is unknown."""
    parts = _sections(text)
    os_release = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', parts.get("os", ""), re.MULTILINE))
    user_id, _, user = parts.get("user", "").partition(" ")
    machine = parts.get("machine", "")
    docker, said = _docker(parts.get("docker", ""))
    return HostFacts(
        user=user,
        root=user_id == "0",
        sudo=parts.get("sudo") == "yes",
        os=os_release.get("PRETTY_NAME", "unknown"),
        os_ids=frozenset(
            f"{os_release.get('ID', '')} {os_release.get('ID_LIKE', '')}".lower().split()
        ),
        machine_id=machine if _MACHINE_ID.fullmatch(machine) else "",
        clock_s=_number(parts.get("clock", "")),
        memory_bytes=_meminfo(parts.get("meminfo", ""), "MemTotal"),
        available_bytes=free_memory_bytes(parts.get("meminfo", "")),
        cpus=int(_number(parts.get("cpus", "")) or 1),
        docker=docker,
        docker_said=said,
        docker_client=parts.get("client") == "yes",
        room=_room(parts.get("disk", ""), parts.get("inodes", "")),
        sshd=_settings(parts.get("sshd", "")),
        iptables=_unless_ok(parts.get("iptables", "")),
        bridged={"1": True, "0": False}.get(parts.get("bridged", "")),
        addresses=_addresses(parts.get("addresses", "")),
        routes=_routes(parts.get("routes", "")),
        networks=_networks(parts.get("networks", "")),
        seen_from=parts.get("peer", ""),
    )


def free_disk_bytes(output: str) -> int | None:
    """Of the first file system in the output of `df -Pk`; None when there is none."""
    found = re.search(r"^\S.*?\s+\d+\s+\d+\s+(\d+)\s+\d+%\s", output, re.MULTILINE)
    return None if found is None else int(found[1]) * 1024


def free_memory_bytes(output: str) -> int | None:
    """What `/proc/meminfo` says is available without swapping; None when it doesn't."""
    return _meminfo(output, "MemAvailable")


def _sections(text: str) -> Mapping[str, str]:
    """What stands below each line "@@ NAME"."""
    _, *found = _SECTION.split(text)
    return {name: body.strip() for name, body in zip(found[::2], found[1::2], strict=True)}


def _meminfo(text: str, name: str) -> int | None:
    found = re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)
    return None if found is None else int(found[1]) * 1024


def _docker(text: str) -> tuple[DockerFacts | None, str]:
    """Facts, or why there are none. The command prints JSON also when the engine doesn't answer,
    with "ServerErrors" in it; before that it may print warnings."""
    said = []
    for line in text.splitlines():
        info = _object(line)
        if info is None:
            said.append(line)
        elif info.get("ServerErrors"):
            said += map(str, info["ServerErrors"])
        elif info.get("ServerVersion"):
            return docker_facts.of_info(info), ""
    return None, " ".join(" ".join(said).split())[:300]


def _object(line: str) -> Mapping[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _room(disk: str, inodes: str) -> Room | None:
    """Of `df -Pk` and `df -Pi` of the same folder, the folder itself on the last line of `disk`."""
    free = free_disk_bytes(disk)
    if free is None:
        return None
    # A file system without a fixed number of inodes shows 0 0 0 and a hyphen.
    found = re.search(r"^\S.*?\s+(\d+)\s+\d+\s+(\d+)\s+(?:\d+%|-)\s", inodes, re.MULTILINE)
    return Room(
        folder=disk.splitlines()[-1],
        free_bytes=free,
        inodes=int(found[1]) if found else 0,
        free_inodes=int(found[2]) if found else 0,
    )


def _settings(text: str) -> Mapping[str, str]:
    """Of `sshd -T`: a lower-case name and its value per line. {} of a refusal to tell."""
    found = dict(re.findall(r"^([a-z0-9]+) (.+)$", text, re.MULTILINE))
    return found if "maxsessions" in found else {}


def _unless_ok(text: str) -> str:
    *said, code = text.split("\n")
    return "" if code == "0" else " ".join(" ".join(said).split())[:200] or f"exit code {code}"


def _addresses(text: str) -> tuple[IPv4Address, ...]:
    """The machine's own, of /proc/net/fib_trie: a leaf, and below it what it is."""
    found = re.findall(r"\|-- ([\d.]+)\s*\n\s*/32 host LOCAL", text)
    return tuple(sorted({IPv4Address(one) for one in found}))


def _routes(text: str) -> tuple[Route, ...]:
    """Of /proc/net/route: hexadecimal, in the byte order of the machine, which is little-endian.
    The default route leads everywhere, and is left out."""
    found = []
    for line in text.splitlines()[1:]:
        interface, target, *_, mask = line.split()[:8]
        network = IPv4Network((_from_hex(target), int(mask, 16).bit_count()), strict=False)
        if network.prefixlen:
            found.append(Route(interface=interface, network=network))
    return tuple(found)


def _from_hex(text: str) -> int:
    return int.from_bytes(bytes.fromhex(text), "little")


def _networks(text: str) -> tuple[IPv4Network, ...]:
    return tuple(IPv4Network(one) for one in text.split() if re.fullmatch(r"[\d.]+/\d+", one))


def _number(text: str) -> float | None:
    found = re.match(r"\d+(\.\d+)?", text)
    return float(found[0]) if found else None


def overlapping(network: IPv4Network, others: Sequence[IPv4Network]) -> IPv4Network | None:
    """The first of the others that shares addresses with it."""
    return next((one for one in others if one.overlaps(network)), None)
