"""The firewall rules around the sandboxes of one host. DockerEngine installs and withdraws them.

Outgoing: a sandbox may answer, but never open a connection. Each packet that enters the host from
the sandboxes' bridge is dropped, unless it belongs to a connection that was opened from outside.
The chain PREROUTING of the table mangle sees all these packets before anything is decided about
them: to the host itself, to other networks, to neighbours, to DNATed ports.

Incoming: only the addresses on an allowlist, those of the proxy, reach published ports. The chain
FORWARD of the same table sees their packets.

A packet that is dropped there is dropped for good, whatever other tables allow. So these rules hold
beside Docker's own, whichever kind of tables Docker uses (ADR 0036).

Rules are data. A Runner executes the commands on the engine's host.
"""

from __future__ import annotations

import ipaddress
import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from orchestrator.domain import errors
from orchestrator.ports import CommandOutcome

_COMMAND_TIMEOUT_S = 15
_COPIES_MAX = 10
_RESTORE = 'printf "%s\\n" "$@" | iptables-restore -w 5 --noflush'
_BRIDGED_TRAFFIC = "/proc/sys/net/bridge/bridge-nf-call-iptables"
_INTERFACES = "/proc/net/dev"
_FORMER_CHAINS = ("INPUT", "DOCKER-USER", "FORWARD")  # of the table filter

Runner = Callable[[Sequence[str]], CommandOutcome]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """The rule that drops new packets from one bridge."""

    program: str  # iptables or ip6tables, of whichever kind (nft, legacy) the host uses
    bridge: str
    required: bool  # whether a failure to set it becomes a warning

    def command(self, action: str) -> tuple[str, ...]:
        """The argv for one action: -C (check), -I (insert at the top) or -D (delete)."""
        match = ("-i", self.bridge, "-m", "conntrack", "!", "--ctstate", "RELATED,ESTABLISHED")
        return (*_mangle(self.program), action, "PREROUTING", *match, "-j", "DROP")


def rules(bridge: str) -> tuple[Rule, ...]:
    """Return the drop rules for a bridge.

    Sandboxes have no IPv6 address, so the IPv6 rule is only a second line of defence and not
    required.
    """
    return (
        Rule(program="iptables", bridge=bridge, required=True),
        Rule(program="ip6tables", bridge=bridge, required=False),
    )


def allowlist_rules(bridge: str, addresses: Sequence[str]) -> tuple[str, ...]:
    """Return the chain that lets in these addresses only, as `iptables -S` prints it.

    Raises ValueError for anything but an IP address or network.
    """
    chain = _allowlist_chain(bridge)
    return (
        f"-N {chain}",
        f"-A {chain} -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN",
        *(f"-A {chain} -s {ipaddress.ip_network(address)} -j RETURN" for address in addresses),
        f"-A {chain} -j DROP",
    )


def proxy_addresses(configured: Sequence[str], our_address: str) -> Sequence[str]:
    """The addresses that may reach a remote host's published ports.

    `configured`: SPAWN_PROXY_ADDRESSES; else it is our own address, as the host sees it. Raises
    errors.HostUnfit (ipv4_only, our_address_unknown).
    """
    if configured:
        return configured
    try:
        return [str(ipaddress.IPv4Address(our_address))]
    except ValueError as error:
        advice = (
            "apps are published over IPv4 only: add the host by its IPv4 address, or set"
            " SPAWN_PROXY_ADDRESSES to the IPv4 address from which this machine reaches it"
        )
        if our_address:
            raise errors.HostUnfit(
                f"we reach it over IPv6, from {our_address}, but {advice}", code="ipv4_only"
            ) from error
        raise errors.HostUnfit(
            f"it doesn't say from which address we connect, and {advice}",
            code="our_address_unknown",
        ) from error


def install(bridge: str, run: Runner, allowlist: Sequence[str] | None = None) -> list[str]:
    """Set the rules that are missing, and return warnings that name the commands to run.

    Only addresses on the `allowlist` may reach published ports; None allows everybody. What an
    earlier release set goes as soon as these rules are set. Safe to repeat.
    """
    warnings = list(_neighbour_warnings(run))
    if not _is_here(bridge, run):
        return [
            "Sandboxes can reach the network of their host: its Docker keeps their network"
            f" {bridge} elsewhere (rootless Docker, Docker Desktop, or an engine of another"
            " machine), where we can't set firewall rules. Use an engine that runs as root on the"
            " machine itself."
        ]
    if allowlist is not None and (failure := _ensure_allowlist(bridge, run, allowlist)):
        warnings.append(
            "Published apps can be reached without the proxy: the firewall rules for"
            f" {bridge} could not be set on that host ({failure})"
        )
    is_fenced = True
    for rule in rules(bridge):
        failure = _ensure_rule(rule, run)
        if failure is not None and rule.required:
            is_fenced = False
            warnings.append(
                "Sandboxes can reach the network of their host: firewall rules could not be"
                f" checked or set ({failure}). As root on that host run:"
                f" {shlex.join(rule.command('-I'))}"
            )
    if is_fenced:
        _remove_former(bridge, run)
    return warnings


def withdraw(bridge: str, run: Runner) -> None:
    """Delete every copy of the rules. Ignore rules that don't exist or can't be deleted."""
    for rule in rules(bridge):
        _delete_copies(run, rule.command("-D"))
    _delete_copies(run, (*_mangle("iptables"), "-D", *_jump_to_allowlist(bridge)))
    for action in ("-F", "-X"):
        run((*_mangle("iptables"), action, _allowlist_chain(bridge)))
    _remove_former(bridge, run)


def _remove_former(bridge: str, run: Runner) -> None:
    """Delete what releases up to 0.1 set for this bridge in the table filter.

    Not only litter: their allowlist would keep out a proxy whose address has changed since.
    """
    chain = _allowlist_chain(bridge)
    drop = f"-i {bridge} -m conntrack ! --ctstate RELATED,ESTABLISHED -j DROP"
    rules_then = {f"-A {name} {drop}" for name in _FORMER_CHAINS}
    rules_then.add(f"-A DOCKER-USER -o {bridge} -j {chain}")
    for program in ("iptables", "ip6tables"):
        lines = run((program, "-w", "5", "-S")).output.splitlines()
        for line in lines:
            if line in rules_then:
                run((program, "-w", "5", "-D", *line.split()[1:]))
        if f"-N {chain}" in lines:
            for action in ("-F", "-X"):
                run((program, "-w", "5", action, chain))


def _delete_copies(run: Runner, command: Sequence[str]) -> None:
    for _ in range(_COPIES_MAX):
        if run(command).code != 0:
            return


def run_locally(argv: Sequence[str]) -> CommandOutcome:
    """Run a command as root on this machine: the Runner for its own engine.

    Anybody but root uses sudo. Where sudo would ask for a password it fails at once, and the
    rules are reported as missing. Raises nothing: each failure is an outcome, with the exit codes
    of a shell (127 not installed, 126 not runnable, 124 timed out).
    """
    # A service's PATH often lacks the sbin folders, where iptables is.
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    if shutil.which(argv[0], path=path) is None:
        return CommandOutcome(code=127, output=f"{argv[0]} is not installed")
    privileged = list(argv) if os.geteuid() == 0 else ["sudo", "-n", *argv]
    try:
        result = subprocess.run(
            privileged,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=_COMMAND_TIMEOUT_S,
            check=False,
            env={"PATH": path, "LC_ALL": "C"},
        )
    except FileNotFoundError:
        return CommandOutcome(code=127, output=f"{privileged[0]} is not installed")
    except subprocess.TimeoutExpired:
        return CommandOutcome(
            code=124, output=f"{argv[0]} did not end within {_COMMAND_TIMEOUT_S} s"
        )
    except OSError as error:
        return CommandOutcome(code=126, output=f"{argv[0]} could not be run: {error}")
    return CommandOutcome(code=result.returncode, output=result.stdout)


def _mangle(program: str) -> tuple[str, ...]:
    # -w: wait for the lock; dockerd itself uses iptables all the time.
    return (program, "-w", "5", "-t", "mangle")


def _is_here(bridge: str, run: Runner) -> bool:
    """Whether the bridge is on the machine whose firewall we set; True if it can't be told."""
    outcome = run(("cat", _INTERFACES))
    names = {line.partition(":")[0].strip() for line in outcome.output.splitlines()}
    return bridge in names or outcome.code != 0


def _ensure_rule(rule: Rule, run: Runner) -> str | None:
    """Set the rule unless it is set. Return None, or why it could not be inserted."""
    if run(rule.command("-C")).code == 0:
        return None
    inserted = run(rule.command("-I"))
    return None if inserted.code == 0 else _describe_failure(inserted)


def _ensure_allowlist(bridge: str, run: Runner, addresses: Sequence[str]) -> str | None:
    """Set the allowlist and the jump to it unless both are right. Return None, or the failure."""
    wanted = allowlist_rules(bridge, addresses)
    chain = run((*_mangle("iptables"), "-S", _allowlist_chain(bridge)))
    # Beside the rules it may print a warning, e.g. that there are tables of the other kind.
    rules_set = [line for line in chain.output.splitlines() if line.startswith("-")]
    if chain.code != 0 or rules_set != list(wanted):
        # One transaction: there is no moment without the list, nor with half of it.
        lines = ("*mangle", f":{_allowlist_chain(bridge)} - [0:0]", *wanted[1:], "COMMIT")
        restored = run(("sh", "-c", _RESTORE, "sh", *lines))
        if restored.code != 0:
            return _describe_failure(restored)
    jump = _jump_to_allowlist(bridge)
    if run((*_mangle("iptables"), "-C", *jump)).code == 0:
        return None
    inserted = run((*_mangle("iptables"), "-I", *jump))
    return None if inserted.code == 0 else _describe_failure(inserted)


def _describe_failure(outcome: CommandOutcome) -> str:
    return " ".join(outcome.output.split()) or f"exit code {outcome.code}"


def _allowlist_chain(bridge: str) -> str:
    return f"{bridge.upper()}-IN"


def _jump_to_allowlist(bridge: str) -> tuple[str, ...]:
    return ("FORWARD", "-o", bridge, "-j", _allowlist_chain(bridge))


def _neighbour_warnings(run: Runner) -> Iterator[str]:
    """Warn unless iptables sees the frames between two sandboxes, which stay on the bridge.

    The kernel passes them to iptables only if this switch is on. Docker turns it on when it makes
    the network; other software is known to turn it off again.
    """
    outcome = run(("cat", _BRIDGED_TRAFFIC))
    if outcome.code != 0 or outcome.output.strip() != "1":
        yield (
            "Sandboxes can reach each other: bridged traffic does not pass the firewall. As root"
            " on that host run: modprobe br_netfilter;"
            " sysctl -w net.bridge.bridge-nf-call-iptables=1"
        )
