"""The firewall rules around sandboxes, outward and inward. DockerEngine.prepare sets them.

A packet that comes in from the sandboxes' bridge is dropped unless it answers one of ours. Two
places see all of them: DOCKER-USER what is forwarded (other networks, neighbours, DNATed ports)
and INPUT what is for the host itself. A packet to the bridge passes when it comes from a guest: an
address of the proxy. Rules are data; a Runner executes them on the engine's host.
"""

from __future__ import annotations

import ipaddress
import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from orchestrator.ports import CommandOutcome

_DEADLINE_S = 15
_COPIES_MAX = 10
_RESTORE = 'printf "%s\\n" "$@" | iptables-restore -w 5 --noflush'
_BRIDGED_TRAFFIC = "/proc/sys/net/bridge/bridge-nf-call-iptables"

Runner = Callable[[Sequence[str]], CommandOutcome]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One drop rule for packets from one bridge."""

    program: str  # iptables or ip6tables, of whichever kind (nft, legacy) the host uses
    chains: tuple[str, ...]  # the first one that the host has takes it
    bridge: str
    required: bool  # whether people hear of it when it can't be set

    def command(self, action: str, chain: str) -> tuple[str, ...]:
        """`action` is -C (is it there), -I (insert on top) or -D (delete)."""
        match = ("-i", self.bridge, "-m", "conntrack", "!", "--ctstate", "RELATED,ESTABLISHED")
        # -w: wait for the lock; dockerd itself uses iptables all the time.
        return (self.program, "-w", "5", action, chain, *match, "-j", "DROP")


def rules(bridge: str) -> tuple[Rule, ...]:
    """All rules for a bridge. FORWARD stands in where Docker has made no DOCKER-USER (its
    nftables backend, or IPv6 switched off). Sandboxes have no IPv6: those two rules only back
    that up."""
    forwarded = ("DOCKER-USER", "FORWARD")
    return (
        Rule(program="iptables", chains=forwarded, bridge=bridge, required=True),
        Rule(program="iptables", chains=("INPUT",), bridge=bridge, required=True),
        Rule(program="ip6tables", chains=forwarded, bridge=bridge, required=False),
        Rule(program="ip6tables", chains=("INPUT",), bridge=bridge, required=False),
    )


def guest_list(bridge: str, guests: Sequence[str]) -> tuple[str, ...]:
    """The chain that lets in the guests alone, as `iptables -S` prints it."""
    chain = _chain(bridge)
    return (
        f"-N {chain}",
        f"-A {chain} -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN",
        *(f"-A {chain} -s {ipaddress.ip_network(guest)} -j RETURN" for guest in guests),
        f"-A {chain} -j DROP",
    )


def install(bridge: str, run: Runner, guests: Sequence[str] | None = None) -> list[str]:
    """Set what isn't set yet; returns warnings that name the commands to run. `guests` may reach
    the published ports; None is everybody. Safe to repeat."""
    failures = [
        (rule, failure)
        for rule in rules(bridge)
        if (failure := _ensure(rule, run)) is not None and rule.required
    ]
    warnings = list(_neighbour_warnings(run))
    if guests is not None and (failure := _admit(bridge, run, guests)) is not None:
        warnings.append(
            f"Others than the proxy can reach published apps: the rules for {bridge} could not be"
            f" set on that host ({failure})"
        )
    if failures:
        commands = "; ".join(shlex.join(rule.command("-I", rule.chains[0])) for rule, _ in failures)
        warnings.append(
            "Sandboxes can reach the network of their host: firewall rules could not be checked"
            f" or set ({failures[0][1]}). As root on that host run: {commands}"
        )
    return warnings


def withdraw(bridge: str, run: Runner) -> None:
    """Delete every copy of the rules; those that aren't there, or can't be deleted, are left."""
    for rule in rules(bridge):
        for chain in rule.chains:
            for _ in range(_COPIES_MAX):
                if run(rule.command("-D", chain)).code != 0:
                    break
    for command in (
        ("iptables", "-w", "5", "-D", "DOCKER-USER", *_to_list(bridge)),
        ("iptables", "-w", "5", "-F", _chain(bridge)),
        ("iptables", "-w", "5", "-X", _chain(bridge)),
    ):
        run(command)


def run_here(argv: Sequence[str]) -> CommandOutcome:
    """The Runner for an engine on this machine. An ordinary user may have passwordless sudo; where
    that asks for a password it is refused at once, and the rules are reported as missing."""
    # A service's PATH often lacks the sbin folders, where iptables is.
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    if shutil.which(argv[0], path=path) is None:
        return CommandOutcome(code=127, output=f"{argv[0]} is not installed")
    privileged = list(argv) if os.geteuid() == 0 else ["sudo", "-n", *argv]
    try:
        done = subprocess.run(
            privileged,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=_DEADLINE_S,
            check=False,
            env={"PATH": path, "LC_ALL": "C"},
        )
    except FileNotFoundError:
        return CommandOutcome(code=127, output=f"{privileged[0]} is not installed")
    except subprocess.TimeoutExpired:
        return CommandOutcome(code=124, output=f"{argv[0]} did not end within {_DEADLINE_S} s")
    except OSError as error:
        return CommandOutcome(code=126, output=f"{argv[0]} could not be run: {error}")
    return CommandOutcome(code=done.returncode, output=done.stdout)


def _ensure(rule: Rule, run: Runner) -> str | None:
    """None when the rule stands, else what the first attempt to insert it was answered."""
    failure = None
    for chain in rule.chains:
        if run(rule.command("-C", chain)).code == 0:
            return None
        outcome = run(rule.command("-I", chain))
        if outcome.code == 0:
            return None
        failure = failure or " ".join(outcome.output.split()) or f"exit code {outcome.code}"
    return failure


def _admit(bridge: str, run: Runner, guests: Sequence[str]) -> str | None:
    """None when the guest list stands as it should, else what was said of it."""
    wanted = guest_list(bridge, guests)
    shown = run(("iptables", "-w", "5", "-S", _chain(bridge)))
    if shown.code != 0 or shown.output.strip().split("\n") != list(wanted):
        # One transaction: there is no moment without the list, nor with half of it.
        lines = ("*filter", f":{_chain(bridge)} - [0:0]", *wanted[1:], "COMMIT")
        made = run(("sh", "-c", _RESTORE, "sh", *lines))
        if made.code != 0:
            return " ".join(made.output.split()) or f"exit code {made.code}"
    jump = ("DOCKER-USER", *_to_list(bridge))
    if run(("iptables", "-w", "5", "-C", *jump)).code == 0:
        return None
    inserted = run(("iptables", "-w", "5", "-I", *jump))
    return None if inserted.code == 0 else " ".join(inserted.output.split()) or "no reason given"


def _chain(bridge: str) -> str:
    return f"{bridge.upper()}-IN"


def _to_list(bridge: str) -> tuple[str, ...]:
    return ("-o", bridge, "-j", _chain(bridge))


def _neighbour_warnings(run: Runner) -> Iterator[str]:
    """Frames between two sandboxes stay on the bridge: iptables sees them only with this switch.

    Docker turns it on when it makes the network; other software is known to turn it off again.
    """
    outcome = run(("cat", _BRIDGED_TRAFFIC))
    if outcome.code != 0 or outcome.output.strip() != "1":
        yield (
            "Sandboxes can reach each other: bridged traffic does not pass the firewall. As root"
            " on that host run: modprobe br_netfilter;"
            " sysctl -w net.bridge.bridge-nf-call-iptables=1"
        )
