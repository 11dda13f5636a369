"""Checks the survey of a machine that is a host or is to become one. Pure.

Used by `spawnctl hosts add` and `hosts doctor`. Run the fixes as root on that machine, unless they
say otherwise. `spawnctl hosts bootstrap` applies most of them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address

from orchestrator.domain.pool import agent_sockets, host_fields
from orchestrator.domain.pool.host_facts import HostFacts, Survey
from orchestrator.entrypoints.cli.checks.address_pools import check_address_pools
from orchestrator.entrypoints.cli.checks.docker_facts import check_docker_facts
from orchestrator.entrypoints.cli.checks.firewall import check_firewall
from orchestrator.entrypoints.cli.findings import Finding, ok, problem, warning

_GIB = 1024**3
_MIB = 1024**2
_SKEW_S = 5.0  # with more, the logs of two machines can't be compared, and TLS may fail
_SKEW_MAX_S = 120.0
_SESSIONS_MIN = 4  # sessions in one connection: the heartbeat, a command, and some spare
_STARTUPS_MIN = 3  # connections that haven't logged in yet; other clients connect too
_INODES_MIN = 20_000
_BRIDGED = "modprobe br_netfilter && sysctl -w net.bridge.bridge-nf-call-iptables=1"


@dataclass(frozen=True, kw_only=True)
class Requirements:
    """What this installation requires of a host."""

    address: str  # ssh://...
    publish_address: str
    ports: str  # "21000-28999"
    runtime: str  # OCI runtime of the sandboxes, "" for Docker's own
    disk_floor_bytes: int
    memory_floor_bytes: int
    slots: int | None = None  # that the operator set; None: as many as memory and CPUs give
    proxies_known: bool = False  # SPAWN_PROXY_ADDRESSES names who may reach the apps


def check_host(survey: Survey, requirements: Requirements) -> Iterator[Finding]:
    """Every check. A check comes before those that depend on it."""
    facts = survey.facts
    yield _system(facts)
    yield _user(facts)
    yield from _our_address(facts, requirements)
    yield _forwarding(survey)
    yield from _sshd(facts)
    yield from _sshd_files(facts, requirements)
    yield from _docker(facts, requirements)
    yield _memory(facts, requirements)
    yield from _disk(facts, requirements)
    yield _clock(survey)
    yield from check_firewall(facts.iptables, facts.tables)
    yield _bridge_filter(facts)
    yield from check_address_pools(facts)
    yield _publishing(survey, requirements)


def _system(facts: HostFacts) -> Finding:
    if not facts.machine_id:
        return problem(
            "system",
            f"{facts.os}, without a machine id: two names of one machine couldn't be told apart",
            "systemd-machine-id-setup (without systemd: dbus-uuidgen --ensure=/etc/machine-id)",
            "machine_id_missing",
        )
    return ok("system", facts.os)


def _user(facts: HostFacts) -> Finding:
    if facts.root:
        return ok("user", "root")
    if facts.sudo:
        return ok("user", f"{facts.user}, who may use sudo")
    return problem(
        "user",
        f"{facts.user} may not become root: firewall rules and folders couldn't be made",
        f"echo '{facts.user} ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/spawnai && chmod 440"
        " /etc/sudoers.d/spawnai; or log in as root",
        "not_root",
    )


def _our_address(facts: HostFacts, requirements: Requirements) -> Iterator[Finding]:
    """A problem if the firewall there can't tell our address: it knows IPv4 only."""
    if requirements.proxies_known:
        return
    try:
        IPv4Address(facts.our_address.removeprefix("::ffff:"))
    except ValueError:
        seen = f"as {facts.our_address}" if facts.our_address else "without an address"
        yield problem(
            "address",
            f"the machine sees us {seen}: apps are published over IPv4 only",
            "Add it by its IPv4 address, or set SPAWN_PROXY_ADDRESSES to the IPv4 address from"
            " which this machine reaches it",
            "ipv4_only",
        )


def _forwarding(survey: Survey) -> Finding:
    if not survey.forwarding:
        return ok("forwarding", "sockets are forwarded both ways")
    forbidding = {
        name: value
        for name, value in survey.facts.sshd.items()
        if (name, value) in {("disableforwarding", "yes"), ("permitopen", "none")}
        or (name == "allowstreamlocalforwarding" and value not in {"yes", "all"})
    }
    settings = "; ".join(f"{name} {value}" for name, value in forbidding.items())
    return problem(
        "forwarding",
        f"its sshd forbids it: {survey.forwarding}" + (f" ({settings})" if settings else ""),
        "printf 'AllowStreamLocalForwarding yes\\nDisableForwarding no\\n'"
        " > /etc/ssh/sshd_config.d/00-spawnai.conf && sshd -t && systemctl reload ssh; a restrict"
        " or no-port-forwarding before our key in authorized_keys has to go too",
        "forwarding_refused",
    )


def _sshd(facts: HostFacts) -> Iterator[Finding]:
    """The limits on connections; a warning if this user can't read the settings."""
    if not facts.sshd:
        yield warning(
            "sshd",
            "its settings can't be read by this user",
            "Log in as root, or look yourself: sudo sshd -T | grep -i -e maxse -e maxst",
        )
        return
    sessions = int(facts.sshd.get("maxsessions", "10"))
    startups = facts.sshd.get("maxstartups", "10:30:100")
    low = []
    if sessions < _SESSIONS_MIN:
        low.append(f"MaxSessions {sessions}")
    if int(startups.split(":")[0]) < _STARTUPS_MIN:
        low.append(f"MaxStartups {startups}")
    if low:
        yield problem(
            "sshd",
            f"{' and '.join(low)}: too few for our connections",
            "printf 'MaxSessions 10\\nMaxStartups 30:30:100\\n'"
            " > /etc/ssh/sshd_config.d/00-spawnai.conf && sshd -t && systemctl reload ssh",
            "sshd_too_tight",
        )
    else:
        yield ok("sshd", f"MaxSessions {sessions}, MaxStartups {startups}")


def _sshd_files(facts: HostFacts, requirements: Requirements) -> Iterator[Finding]:
    """A warning if one connection can't carry the sockets of as many sandboxes as there are
    slots. The sandboxes beyond get none, and never become ready."""
    if facts.sshd_descriptors is None:
        return
    slots = requirements.slots or host_fields.default_slots(
        memory_bytes=facts.memory_bytes or 0, cpus=facts.cpus
    )
    carried = agent_sockets.sandboxes_on_link(facts.sshd_descriptors)
    if carried >= slots:
        return
    at_best = agent_sockets.sandboxes_on_link(sys.maxsize)
    fixes = []
    if carried < at_best:
        fixes.append(
            "mkdir -p /etc/systemd/system/ssh.service.d && printf '[Service]\nLimitNOFILE=65536\n'"
            " > /etc/systemd/system/ssh.service.d/spawnai.conf && systemctl daemon-reload &&"
            " systemctl restart ssh"
        )
    if slots > at_best:
        fixes.append(f"add it with --slots {at_best}: no connection carries more")
    yield warning(
        "sshd's files",
        f"its sshd may open {facts.sshd_descriptors} files for a connection, which is enough for"
        f" {carried} sandboxes, and the host has {slots} slots",
        "; ".join(fixes),
    )


def _docker(facts: HostFacts, requirements: Requirements) -> Iterator[Finding]:
    if facts.docker is not None:
        yield from check_docker_facts(facts.docker, requirements.runtime)
        return
    if not facts.docker_client:
        yield problem(
            "Docker",
            "is not installed",
            f"apt-get install docker.io iptables; or from here: spawnctl hosts bootstrap"
            f" {requirements.address}",
            "docker_absent",
        )
    elif "permission denied" in facts.docker_error.lower():
        yield problem(
            "Docker",
            f"{facts.user} may not use its socket",
            f"usermod -aG docker {facts.user}; it counts from the next login on",
            "docker_denied",
        )
    else:
        yield problem(
            "Docker",
            f"does not answer: {facts.docker_error or 'no reason given'}",
            "systemctl enable --now docker; journalctl -u docker says why it doesn't start",
            "docker_unavailable",
        )


def _memory(facts: HostFacts, requirements: Requirements) -> Finding:
    if facts.memory_bytes is None or facts.available_bytes is None:
        return warning("memory", "can't be read", "See /proc/meminfo there")
    slots = host_fields.default_slots(memory_bytes=facts.memory_bytes, cpus=facts.cpus)
    detail = f"{_gib(facts.memory_bytes)}, {_gib(facts.available_bytes)} of it available"
    if facts.available_bytes < requirements.memory_floor_bytes:
        return problem(
            "memory",
            f"{detail}; {_gib(requirements.memory_floor_bytes)} have to stay available",
            "End other programs (ps aux --sort=-rss | head), use a bigger machine, or lower"
            " SPAWN_HOST_MEMORY_FLOOR_MB here",
            "memory_short",
        )
    return ok("memory", f"{detail}; with {facts.cpus} CPUs good for {slots} slots")


def _disk(facts: HostFacts, requirements: Requirements) -> Iterator[Finding]:
    disk = facts.disk
    if disk is None:
        yield warning("disk", "can't be read", "See there: df -h /var/lib/docker")
        return
    detail = f"{_gib(disk.free_bytes)} free at {disk.folder}"
    fix = f"docker image prune; du -xh --max-depth=1 {disk.folder} | sort -h"
    if disk.free_bytes < requirements.disk_floor_bytes:
        yield problem(
            "disk",
            f"{detail}; {_gib(requirements.disk_floor_bytes)} have to stay free",
            fix,
            "disk_full",
        )
    else:
        yield ok("disk", detail)
    if disk.inodes and disk.free_inodes < _INODES_MIN:
        yield problem(
            "inodes",
            f"{disk.free_inodes} of {disk.inodes} free at {disk.folder}",
            f"du --inodes -x --max-depth=1 {disk.folder} | sort -n, and remove what has many files",
            "inodes_short",
        )


def _clock(survey: Survey) -> Finding:
    skew = survey.clock_skew_s
    fix = "apt-get install systemd-timesyncd && timedatectl set-ntp true"
    if skew is None:
        return warning("clock", "can't be read", fix)
    detail = f"{abs(skew):.1f} s {'ahead of' if skew > 0 else 'behind'} ours"
    if abs(skew) > _SKEW_MAX_S:
        return problem("clock", detail, fix, "clock_skewed")
    return warning("clock", detail, fix) if abs(skew) > _SKEW_S else ok("clock", "agrees with ours")


def _bridge_filter(facts: HostFacts) -> Finding:
    """Docker loads the module with its first network. Other programs may switch it off."""
    if facts.bridged:
        return ok("br_netfilter", "bridged traffic passes the firewall")
    detail = "is not loaded yet" if facts.bridged is None else "is switched off"
    return warning(
        "br_netfilter",
        f"{detail}: sandboxes could reach each other",
        f"{_BRIDGED}; for the next start: spawnctl hosts bootstrap",
    )


def _publishing(survey: Survey, requirements: Requirements) -> Finding:
    name, address = "publishing", requirements.publish_address
    facts = survey.facts
    if facts.addresses and IPv4Address(address) not in facts.addresses:
        addresses = ", ".join(str(own) for own in facts.addresses if not own.is_loopback)
        return problem(
            name,
            f"the machine has no address {address}",
            f"Give one of its own that is reached from here with --publish-address: {addresses}",
            "publish_address_foreign",
        )
    if not survey.published_tried:
        return warning(
            name,
            "can't be tried: the machine has neither perl nor python3",
            "apt-get install perl-base",
        )
    if not survey.publishing:
        return ok(name, f"ports of {address} are reached from here")
    port_range = requirements.ports.replace("-", ":")
    source = facts.our_address or "our address"
    return problem(
        name,
        f"apps on {address} can't be reached from here: {survey.publishing}",
        f"Let {source} in: ufw allow proto tcp from {source} to any port {port_range} (and the same"
        " in the provider's firewall); or another --publish-address",
        "publish_unreachable",
    )


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / _GIB:.1f} GiB"
