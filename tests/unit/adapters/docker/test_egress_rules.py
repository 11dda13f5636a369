"""The firewall rules, applied to firewalls made of lists."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest

from orchestrator.adapters.docker import egress
from orchestrator.adapters.docker.egress import CommandOutcome
from orchestrator.domain import errors

BRIDGE = "spn0123456789"
MATCH = f"-i {BRIDGE} -m conntrack ! --ctstate RELATED,ESTABLISHED -j DROP"
JUMP = f"-o {BRIDGE} -j {BRIDGE.upper()}-IN"


class ListFirewall:
    """Executes the iptables commands that we use, on the chains of a machine's table mangle.

    Of the table filter it has the rules that were set before, and lists and deletes them.
    """

    def __init__(
        self,
        *,
        ipv6: Iterable[str] = ("PREROUTING", "FORWARD"),
        bridged_traffic: str = "1\n",
        interfaces: Iterable[str] = ("lo", BRIDGE, "spnother"),
    ) -> None:
        self.chains: dict[tuple[str, str], list[str]] = {
            **{("iptables", chain): ["-j RETURN"] for chain in ("PREROUTING", "FORWARD")},
            **{("ip6tables", chain): ["-j RETURN"] for chain in ipv6},
        }
        self.files = {
            "/proc/sys/net/bridge/bridge-nf-call-iptables": bridged_traffic,
            "/proc/net/dev": "".join(f"{name:>6}: 0 0\n" for name in interfaces),
        }
        self.filter: list[str] = []  # as `iptables -S` prints them
        self.remarks: list[str] = []  # printed before each listing
        self.restored = 0  # how often rules were replaced in one transaction

    def __call__(self, argv: Sequence[str]) -> CommandOutcome:
        if argv[0] == "cat":
            return CommandOutcome(code=0, output=self.files[argv[1]])
        if argv[0] == "sh":
            return self._restore(argv[4:])
        if "mangle" not in argv:
            return self._on_filter(*argv)
        program, *table, action, chain = argv[:7]
        match = argv[7:]
        assert table == ["-w", "5", "-t", "mangle"]
        rules = self.chains.get((program, chain))
        if rules is None:
            return CommandOutcome(code=1, output="iptables: No chain/target/match by that name.\n")
        if action in {"-S", "-F", "-X"}:
            return self._on_chain(action, program, chain, rules)
        rule = " ".join(match)
        target = match[-1]
        if action == "-I" and target.isupper() and not self._has_target(program, target):
            return CommandOutcome(code=2, output=f"iptables: no chain named {target}\n")
        if action == "-I":
            rules.insert(0, rule)
            return CommandOutcome(code=0, output="")
        if rule not in rules:
            return CommandOutcome(code=1, output="iptables: Bad rule.\n")
        if action == "-D":
            rules.remove(rule)
        return CommandOutcome(code=0, output="")

    def _has_target(self, program: str, target: str) -> bool:
        return target in {"DROP", "RETURN", "ACCEPT"} or (program, target) in self.chains

    def _on_chain(self, action: str, program: str, chain: str, rules: list[str]) -> CommandOutcome:
        if action == "-S":
            listing = [*self.remarks, f"-N {chain}", *(f"-A {chain} {rule}" for rule in rules)]
            return CommandOutcome(code=0, output="\n".join(listing) + "\n")
        if action == "-F":
            rules.clear()
        elif rules or any(
            f"-j {chain}" in rule for other in self.chains.values() for rule in other
        ):
            return CommandOutcome(code=1, output="iptables: Directory not empty.\n")
        else:
            del self.chains[program, chain]
        return CommandOutcome(code=0, output="")

    def _on_filter(
        self, program: str, _wait: str, _seconds: str, action: str, *rest: str
    ) -> CommandOutcome:
        if program == "ip6tables":
            return CommandOutcome(code=127, output="ip6tables is not installed")
        if action == "-S":
            listing = [*self.remarks, *self.filter]
            return CommandOutcome(code=0, output="".join(f"{line}\n" for line in listing))
        if action == "-D":
            self.filter.remove(" ".join(("-A", *rest)))
        elif action == "-F":
            self.filter = [line for line in self.filter if not line.startswith(f"-A {rest[0]} ")]
        else:
            assert action == "-X"
            self.filter.remove(f"-N {rest[0]}")
        return CommandOutcome(code=0, output="")

    def _restore(self, lines: Sequence[str]) -> CommandOutcome:
        """Like iptables-restore with --noflush: a declared chain is created anew."""
        assert (lines[0], lines[-1]) == ("*mangle", "COMMIT")
        self.restored += 1
        for line in lines[1:-1]:
            if line.startswith(":"):
                self.chains["iptables", line[1:].split()[0]] = []
            else:
                _append, chain, rule = line.split(" ", 2)
                self.chains["iptables", chain].append(rule)
        return CommandOutcome(code=0, output="")


class RefusingFirewall:
    """iptables for anybody but root."""

    def __call__(self, argv: Sequence[str]) -> CommandOutcome:
        if argv[0] == "cat":
            return ListFirewall()(argv)
        return CommandOutcome(code=4, output="Permission denied\n (you must be root)\n")


def test_packets_are_dropped_before_any_other_rule() -> None:
    firewall = ListFirewall()
    assert egress.install(BRIDGE, firewall) == []
    for program in ("iptables", "ip6tables"):
        assert firewall.chains[program, "PREROUTING"] == [MATCH, "-j RETURN"]
        assert firewall.chains[program, "FORWARD"] == ["-j RETURN"]


def test_installing_again_changes_nothing() -> None:
    firewall = ListFirewall()
    egress.install(BRIDGE, firewall)
    expected = {chain: list(rules) for chain, rules in firewall.chains.items()}
    assert egress.install(BRIDGE, firewall) == []
    assert firewall.chains == expected


def test_a_rule_that_was_flushed_is_set_again() -> None:
    firewall = ListFirewall()
    egress.install(BRIDGE, firewall)
    firewall.chains["iptables", "PREROUTING"].clear()
    egress.install(BRIDGE, firewall)
    assert firewall.chains["iptables", "PREROUTING"] == [MATCH]


def test_a_network_that_is_not_on_this_machine_is_named_and_gets_no_rules() -> None:
    firewall = ListFirewall(interfaces=("lo", "eth0"))
    (warning,) = egress.install(BRIDGE, firewall, ALLOWLIST)
    assert BRIDGE in warning
    assert "rootless Docker" in warning
    assert firewall.chains["iptables", "PREROUTING"] == ["-j RETURN"]


def test_withdrawing_deletes_every_copy_and_nothing_else() -> None:
    firewall = ListFirewall()
    egress.install(BRIDGE, firewall)
    egress.install("spnother", firewall)
    firewall.chains["iptables", "PREROUTING"].insert(0, MATCH)
    egress.withdraw(BRIDGE, firewall)
    remaining = [rule for rules in firewall.chains.values() for rule in rules]
    assert not any(BRIDGE in rule for rule in remaining)
    assert sum("spnother" in rule for rule in remaining) == 2


# What an earlier release set in the table filter

OTHERS = [
    "-P INPUT ACCEPT",
    "-N DOCKER-USER",
    "-N SPNOTHER-IN",
    f"-A INPUT -i {BRIDGE} -p tcp -j ACCEPT",  # somebody's own
    f"-A FORWARD -o {BRIDGE} -j DOCKER",
    "-A DOCKER-USER -i spnother -m conntrack ! --ctstate RELATED,ESTABLISHED -j DROP",
    "-A DOCKER-USER -o spnother -j SPNOTHER-IN",
    "-A SPNOTHER-IN -j DROP",
]
FORMER = [
    f"-N {BRIDGE.upper()}-IN",
    f"-A INPUT {MATCH}",
    f"-A DOCKER-USER {MATCH}",
    f"-A DOCKER-USER -o {BRIDGE} -j {BRIDGE.upper()}-IN",
    f"-A {BRIDGE.upper()}-IN -s 10.9.9.9/32 -j RETURN",
    f"-A {BRIDGE.upper()}-IN -j DROP",
]


def test_the_rules_of_an_earlier_release_go_once_ours_are_set() -> None:
    """An allowlist of then would keep out a proxy whose address has changed since."""
    firewall = ListFirewall()
    firewall.filter = [*OTHERS, *FORMER]
    assert egress.install(BRIDGE, firewall, ALLOWLIST) == []
    assert firewall.filter == OTHERS


def test_withdrawing_deletes_the_rules_of_an_earlier_release_too() -> None:
    firewall = ListFirewall()
    firewall.filter = [*OTHERS, *FORMER]
    egress.withdraw(BRIDGE, firewall)
    assert firewall.filter == OTHERS


def test_the_rules_of_an_earlier_release_stay_while_ours_cannot_be_set() -> None:
    class HalfFirewall(ListFirewall):
        def __call__(self, argv: Sequence[str]) -> CommandOutcome:
            if "-I" in argv:
                return CommandOutcome(code=4, output="iptables: No space left.")
            return super().__call__(argv)

    firewall = HalfFirewall()
    firewall.filter = list(FORMER)
    assert egress.install(BRIDGE, firewall) != []
    assert firewall.filter == FORMER


# Who may reach published ports


@pytest.mark.parametrize("address", ["fe80::1", "2001:db8::7", "", "somewhere"])
def test_a_host_that_sees_no_ipv4_address_of_ours_is_unfit_with_advice(address: str) -> None:
    with pytest.raises(errors.HostUnfit, match="SPAWN_PROXY_ADDRESSES") as caught:
        egress.proxy_addresses((), address)
    assert caught.value.code == ("ipv4_only" if ":" in address else caught.value.code)


def test_addresses_that_the_operator_names_count_more_than_ours() -> None:
    assert egress.proxy_addresses(("10.0.0.0/8",), "fe80::1") == ("10.0.0.0/8",)
    assert egress.proxy_addresses((), "10.0.0.1") == ["10.0.0.1"]


CHAIN = f"{BRIDGE.upper()}-IN"
ALLOWLIST = ["10.0.0.1", "192.168.7.0/24"]
ESTABLISHED = "-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN"


def test_only_addresses_on_the_allowlist_reach_published_ports() -> None:
    firewall = ListFirewall()
    assert egress.install(BRIDGE, firewall, ALLOWLIST) == []
    assert firewall.chains["iptables", CHAIN] == [
        ESTABLISHED,
        "-s 10.0.0.1/32 -j RETURN",
        "-s 192.168.7.0/24 -j RETURN",
        "-j DROP",
    ]
    assert firewall.chains["iptables", "FORWARD"] == [JUMP, "-j RETURN"]


def test_without_an_allowlist_everybody_reaches_published_ports() -> None:
    firewall = ListFirewall()
    egress.install(BRIDGE, firewall)
    assert ("iptables", CHAIN) not in firewall.chains
    assert firewall.restored == 0


def test_an_empty_allowlist_keeps_everybody_out() -> None:
    firewall = ListFirewall()
    egress.install(BRIDGE, firewall, [])
    assert firewall.chains["iptables", CHAIN] == [ESTABLISHED, "-j DROP"]


def test_an_allowlist_that_is_set_is_left_alone() -> None:
    firewall = ListFirewall()
    egress.install(BRIDGE, firewall, ALLOWLIST)
    expected = {chain: list(rules) for chain, rules in firewall.chains.items()}
    assert egress.install(BRIDGE, firewall, ALLOWLIST) == []
    assert firewall.chains == expected
    assert firewall.restored == 1


def test_a_remark_of_iptables_about_other_tables_makes_no_difference() -> None:
    firewall = ListFirewall()
    firewall.remarks = [
        "# Warning: iptables-legacy tables present, use iptables-legacy to see them"
    ]
    for _ in range(2):
        assert egress.install(BRIDGE, firewall, ALLOWLIST) == []
    assert firewall.restored == 1


@pytest.mark.parametrize("allowlist", [["10.0.0.1"], ["10.0.0.2", "192.168.7.0/24"], []], ids=str)
def test_an_allowlist_that_changed_is_replaced_in_one_transaction(allowlist: list[str]) -> None:
    firewall = ListFirewall()
    egress.install(BRIDGE, firewall, ALLOWLIST)
    egress.install(BRIDGE, firewall, allowlist)
    assert firewall.restored == 2
    fresh = ListFirewall()
    egress.install(BRIDGE, fresh, allowlist)
    assert firewall.chains == fresh.chains


def test_an_allowlist_that_was_changed_or_lost_its_jump_is_set_again() -> None:
    firewall = ListFirewall()
    egress.install(BRIDGE, firewall, ALLOWLIST)
    intact = {chain: list(rules) for chain, rules in firewall.chains.items()}
    firewall.chains["iptables", CHAIN].insert(0, "-j RETURN")
    egress.install(BRIDGE, firewall, ALLOWLIST)
    assert firewall.chains == intact
    firewall.chains["iptables", "FORWARD"].remove(JUMP)
    egress.install(BRIDGE, firewall, ALLOWLIST)
    assert firewall.chains == intact


def test_withdrawing_deletes_the_allowlist_too() -> None:
    firewall = ListFirewall()
    before = {chain: list(rules) for chain, rules in firewall.chains.items()}
    egress.install(BRIDGE, firewall, ALLOWLIST)
    firewall.chains["iptables", "FORWARD"].insert(0, JUMP)  # a copy
    egress.withdraw(BRIDGE, firewall)
    assert firewall.chains == before


def test_two_installations_have_one_allowlist_each() -> None:
    firewall = ListFirewall()
    egress.install(BRIDGE, firewall, ["10.0.0.1"])
    egress.install("spnother", firewall, ["10.0.0.2"])
    egress.withdraw("spnother", firewall)
    assert "-s 10.0.0.1/32 -j RETURN" in firewall.chains["iptables", CHAIN]
    assert ("iptables", "SPNOTHER-IN") not in firewall.chains


def test_an_entry_that_is_no_address_is_refused_before_anything_is_set() -> None:
    firewall = ListFirewall()
    with pytest.raises(ValueError, match="proxy"):
        egress.allowlist_rules(BRIDGE, ["proxy.example.org"])
    assert firewall.restored == 0


def test_a_warning_says_that_the_allowlist_could_not_be_set() -> None:
    warnings = egress.install(BRIDGE, RefusingFirewall(), ALLOWLIST)
    (warning,) = [text for text in warnings if "without the proxy" in text]
    assert "Permission denied (you must be root)" in warning


def test_the_name_of_the_allowlist_chain_fits_iptables() -> None:
    """iptables allows 28 characters for a chain, Linux 15 for an interface."""
    (new_chain, *_) = egress.allowlist_rules("s" * 15, [])
    assert len(new_chain.removeprefix("-N ")) <= 28


def test_without_root_the_warning_says_why_and_names_the_exact_command() -> None:
    (warning,) = egress.install(BRIDGE, RefusingFirewall())
    assert "Permission denied (you must be root)" in warning
    command = f"iptables -w 5 -t mangle -I PREROUTING {MATCH}".replace("!", "'!'")
    assert command in warning


def test_missing_ip6tables_causes_no_warning() -> None:
    assert egress.install(BRIDGE, ListFirewall(ipv6=())) == []


@pytest.mark.parametrize("bridged_traffic", ["0\n", ""])
def test_a_warning_says_that_neighbours_bypass_the_firewall(bridged_traffic: str) -> None:
    (warning,) = egress.install(BRIDGE, ListFirewall(bridged_traffic=bridged_traffic))
    assert "sysctl -w net.bridge.bridge-nf-call-iptables=1" in warning


def test_a_missing_program_is_an_outcome_and_no_error() -> None:
    assert egress.run_locally(("no-such-program-here",)).code == 127


def test_an_outcome_has_the_output_and_the_exit_code() -> None:
    outcome = egress.run_locally(("sh", "-c", "echo out; echo err >&2; exit 3"))
    assert (outcome.code, outcome.output) == (3, "out\nerr\n")
