"""What is wrong with a machine that is a host or is to be one, by one look at it. Pure.

Made for `spawnctl hosts add` and `hosts doctor`. Fixes are for root over there unless they say
otherwise; `spawnctl hosts bootstrap` does most of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address

from orchestrator.domain.pool import host_fields
from orchestrator.domain.pool.host_facts import HostFacts, Survey
from orchestrator.entrypoints.cli.checks import address_pools, docker_facts
from orchestrator.entrypoints.cli.findings import Finding, ok, problem, warning

_GIB = 1024**3
_MIB = 1024**2
_SKEW_S = 5.0  # beyond it logs of two machines can't be read together, and TLS may fail
_SKEW_MAX_S = 120.0
_SESSIONS_MIN = 4  # of one connection: its heart, a command, and a little room
_STARTUPS_MIN = 3  # connections that haven't logged in yet; others knock there too
_INODES_MIN = 20_000
_BRIDGED = "modprobe br_netfilter && sysctl -w net.bridge.bridge-nf-call-iptables=1"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a host has to be like here."""

    address: str  # ssh://...
    publish_address: str
    ports: str  # "21000-28999"
    runtime: str  # OCI runtime of the sandboxes, "" for Docker's own
    disk_floor_bytes: int
    memory_floor_bytes: int


def examine(survey: Survey, wanted: Wanted) -> Iterator[Finding]:
    """Everything, what others rest on first."""
    facts = survey.facts
    yield _system(facts)
    yield _user(facts)
    yield _forwarding(survey)
    yield from _sshd(facts)
    yield from _docker(facts, wanted)
    yield _memory(facts, wanted)
    yield from _disk(facts, wanted)
    yield _clock(survey)
    yield _iptables(facts)
    yield _neighbours(facts)
    yield from address_pools.pools(facts)
    yield _publishing(survey, wanted)


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


def _forwarding(survey: Survey) -> Finding:
    if not survey.forwarding:
        return ok("forwarding", "sockets are forwarded both ways")
    set_by = {
        name: value
        for name, value in survey.facts.sshd.items()
        if (name, value) in {("disableforwarding", "yes"), ("permitopen", "none")}
        or (name == "allowstreamlocalforwarding" and value not in {"yes", "all"})
    }
    seen = "; ".join(f"{name} {value}" for name, value in set_by.items())
    return problem(
        "forwarding",
        f"its sshd forbids it: {survey.forwarding}" + (f" ({seen})" if seen else ""),
        "printf 'AllowStreamLocalForwarding yes\\nDisableForwarding no\\n'"
        " > /etc/ssh/sshd_config.d/00-spawnai.conf && sshd -t && systemctl reload ssh; a restrict"
        " or no-port-forwarding before our key in authorized_keys has to go too",
        "forwarding_refused",
    )


def _sshd(facts: HostFacts) -> Iterator[Finding]:
    """Only where its settings could be read."""
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


def _docker(facts: HostFacts, wanted: Wanted) -> Iterator[Finding]:
    if facts.docker is not None:
        yield from docker_facts.engine(facts.docker, wanted.runtime)
        return
    if not facts.docker_client:
        yield problem(
            "Docker",
            "is not installed",
            f"apt-get install docker.io iptables; or from here: spawnctl hosts bootstrap"
            f" {wanted.address}",
            "docker_absent",
        )
    elif "permission denied" in facts.docker_said.lower():
        yield problem(
            "Docker",
            f"{facts.user} may not use its socket",
            f"usermod -aG docker {facts.user}; it counts from the next login on",
            "docker_denied",
        )
    else:
        yield problem(
            "Docker",
            f"does not answer: {facts.docker_said or 'no reason given'}",
            "systemctl enable --now docker; journalctl -u docker says why it doesn't start",
            "docker_unavailable",
        )


def _memory(facts: HostFacts, wanted: Wanted) -> Finding:
    if facts.memory_bytes is None or facts.available_bytes is None:
        return warning("memory", "can't be read", "See /proc/meminfo there")
    slots = host_fields.default_slots(memory_bytes=facts.memory_bytes, cpus=facts.cpus)
    said = f"{_gib(facts.memory_bytes)}, {_gib(facts.available_bytes)} of it available"
    if facts.available_bytes < wanted.memory_floor_bytes:
        return problem(
            "memory",
            f"{said}; {_gib(wanted.memory_floor_bytes)} have to stay available",
            "End other programs (ps aux --sort=-rss | head), use a bigger machine, or lower"
            " SPAWN_HOST_MEMORY_FLOOR_MB here",
            "memory_short",
        )
    return ok("memory", f"{said}; with {facts.cpus} CPUs good for {slots} slots")


def _disk(facts: HostFacts, wanted: Wanted) -> Iterator[Finding]:
    room = facts.room
    if room is None:
        yield warning("disk", "can't be read", "See there: df -h /var/lib/docker")
        return
    said = f"{_gib(room.free_bytes)} free at {room.folder}"
    fix = f"docker image prune; du -xh --max-depth=1 {room.folder} | sort -h"
    if room.free_bytes < wanted.disk_floor_bytes:
        yield problem(
            "disk", f"{said}; {_gib(wanted.disk_floor_bytes)} have to stay free", fix, "disk_full"
        )
    else:
        yield ok("disk", said)
    if room.inodes and room.free_inodes < _INODES_MIN:
        yield problem(
            "inodes",
            f"{room.free_inodes} of {room.inodes} free at {room.folder}",
            f"du --inodes -x --max-depth=1 {room.folder} | sort -n, and remove what has many files",
            "inodes_short",
        )


def _clock(survey: Survey) -> Finding:
    skew = survey.clock_skew_s
    fix = "apt-get install systemd-timesyncd && timedatectl set-ntp true"
    if skew is None:
        return warning("clock", "can't be read", fix)
    said = f"{abs(skew):.1f} s {'ahead of' if skew > 0 else 'behind'} ours"
    if abs(skew) > _SKEW_MAX_S:
        return problem("clock", said, fix, "clock_skewed")
    return warning("clock", said, fix) if abs(skew) > _SKEW_S else ok("clock", "agrees with ours")


def _iptables(facts: HostFacts) -> Finding:
    if not facts.iptables:
        return ok("iptables", "usable: the rules that keep sandboxes in can be set")
    absent = "not found" in facts.iptables
    return problem(
        "iptables",
        "is not installed" if absent else f"can't be used: {facts.iptables}",
        "apt-get install iptables" if absent else "Log in as root, or as a user with sudo -n",
        "iptables_unusable",
    )


def _neighbours(facts: HostFacts) -> Finding:
    """Docker loads the module with its first network; what else is there may switch it off."""
    if facts.bridged:
        return ok("br_netfilter", "bridged traffic passes the firewall")
    said = "is not loaded yet" if facts.bridged is None else "is switched off"
    return warning(
        "br_netfilter",
        f"{said}: sandboxes could reach each other",
        f"{_BRIDGED}; for the next start: spawnctl hosts bootstrap",
    )


def _publishing(survey: Survey, wanted: Wanted) -> Finding:
    name, address = "publishing", wanted.publish_address
    facts = survey.facts
    if facts.addresses and IPv4Address(address) not in facts.addresses:
        own = ", ".join(str(one) for one in facts.addresses if not one.is_loopback)
        return problem(
            name,
            f"the machine has no address {address}",
            f"Give one of its own that is reached from here with --publish-address: {own}",
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
    port_range = wanted.ports.replace("-", ":")
    who = facts.seen_from or "our address"
    return problem(
        name,
        f"apps on {address} can't be reached from here: {survey.publishing}",
        f"Let {who} in: ufw allow proto tcp from {who} to any port {port_range} (and the same in"
        " the provider's firewall); or another --publish-address",
        "publish_unreachable",
    )


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / _GIB:.1f} GiB"
