"""The firewall rules, carried out on firewalls made of lists."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest

from orchestrator.adapters.docker import egress
from orchestrator.adapters.docker.egress import CommandOutcome

BRIDGE = "spn0123456789"
MATCH = f"-i {BRIDGE} -m conntrack ! --ctstate RELATED,ESTABLISHED -j DROP"


class ListFirewall:
    """Understands what we ask of iptables, with the chains that a machine has."""

    def __init__(
        self,
        *,
        ipv4: Iterable[str] = ("INPUT", "FORWARD", "DOCKER-USER"),
        ipv6: Iterable[str] = ("INPUT", "FORWARD"),
        bridged_traffic: str = "1\n",
    ) -> None:
        self.chains: dict[tuple[str, str], list[str]] = {
            **{("iptables", chain): ["-j RETURN"] for chain in ipv4},
            **{("ip6tables", chain): ["-j RETURN"] for chain in ipv6},
        }
        self.bridged_traffic = bridged_traffic
        self.restored = 0  # how often rules were replaced in one transaction

    def __call__(self, argv: Sequence[str]) -> CommandOutcome:
        if argv[0] == "cat":
            return CommandOutcome(code=0, output=self.bridged_traffic)
        if argv[0] == "sh":
            return self._restore(argv[4:])
        program, _wait, _seconds, action, chain, *match = argv
        rules = self.chains.get((program, chain))
        if rules is None:
            return CommandOutcome(code=1, output="iptables: No chain/target/match by that name.\n")
        if action in {"-S", "-F", "-X"}:
            return self._on_chain(action, program, chain, rules)
        rule = " ".join(match)
        if action == "-I":
            rules.insert(0, rule)
            return CommandOutcome(code=0, output="")
        if rule not in rules:
            return CommandOutcome(code=1, output="iptables: Bad rule.\n")
        if action == "-D":
            rules.remove(rule)
        return CommandOutcome(code=0, output="")

    def _on_chain(self, action: str, program: str, chain: str, rules: list[str]) -> CommandOutcome:
        if action == "-S":
            listing = [f"-N {chain}", *(f"-A {chain} {rule}" for rule in rules)]
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

    def _restore(self, lines: Sequence[str]) -> CommandOutcome:
        """What iptables-restore does with --noflush: a chain that is declared is made anew."""
        assert (lines[0], lines[-1]) == ("*filter", "COMMIT")
        self.restored += 1
        for line in lines[1:-1]:
            if line.startswith(":"):
                self.chains["iptables", line[1:].split()[0]] = []
            else:
                _append, chain, rule = line.split(" ", 2)
                self.chains["iptables", chain].append(rule)
        return CommandOutcome(code=0, output="")


class RefusingFirewall:
    """What iptables says to anybody but root."""

    def __call__(self, argv: Sequence[str]) -> CommandOutcome:
        if argv[0] == "cat":
            return CommandOutcome(code=0, output="1\n")
        return CommandOutcome(code=4, output="Permission denied\n (you must be root)\n")


def test_both_ways_out_are_closed_before_any_other_rule_is_asked() -> None:
    firewall = ListFirewall()
    assert egress.install(BRIDGE, firewall) == []
    assert firewall.chains["iptables", "DOCKER-USER"] == [MATCH, "-j RETURN"]
    assert firewall.chains["iptables", "INPUT"] == [MATCH, "-j RETURN"]
    assert firewall.chains["iptables", "FORWARD"] == ["-j RETURN"]
    assert firewall.chains["ip6tables", "FORWARD"] == [MATCH, "-j RETURN"]
    assert firewall.chains["ip6tables", "INPUT"] == [MATCH, "-j RETURN"]


def test_installing_again_changes_nothing() -> None:
    firewall = ListFirewall()
    egress.install(BRIDGE, firewall)
    once = {chain: list(rules) for chain, rules in firewall.chains.items()}
    assert egress.install(BRIDGE, firewall) == []
    assert firewall.chains == once


def test_a_rule_that_was_flushed_is_set_again() -> None:
    firewall = ListFirewall()
    egress.install(BRIDGE, firewall)
    firewall.chains["iptables", "DOCKER-USER"].clear()
    egress.install(BRIDGE, firewall)
    assert firewall.chains["iptables", "DOCKER-USER"] == [MATCH]


def test_forward_takes_the_rule_where_docker_made_no_chain_for_users() -> None:
    firewall = ListFirewall(ipv4=("INPUT", "FORWARD"))
    assert egress.install(BRIDGE, firewall) == []
    assert firewall.chains["iptables", "FORWARD"] == [MATCH, "-j RETURN"]


def test_withdrawing_takes_every_copy_and_nothing_else() -> None:
    firewall = ListFirewall()
    egress.install(BRIDGE, firewall)
    egress.install("spnother", firewall)
    firewall.chains["iptables", "INPUT"].insert(0, MATCH)
    egress.withdraw(BRIDGE, firewall)
    left = [rule for rules in firewall.chains.values() for rule in rules]
    assert not any(BRIDGE in rule for rule in left)
    assert sum("spnother" in rule for rule in left) == 4


# Who may reach published ports

LIST = f"{BRIDGE.upper()}-IN"
GUESTS = ["10.0.0.1", "192.168.7.0/24"]
ANSWERS = "-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN"


def test_guests_are_let_in_and_nobody_else() -> None:
    firewall = ListFirewall()
    assert egress.install(BRIDGE, firewall, GUESTS) == []
    assert firewall.chains["iptables", LIST] == [
        ANSWERS,
        "-s 10.0.0.1/32 -j RETURN",
        "-s 192.168.7.0/24 -j RETURN",
        "-j DROP",
    ]
    jump = f"-o {BRIDGE} -j {LIST}"
    assert firewall.chains["iptables", "DOCKER-USER"] == [jump, MATCH, "-j RETURN"]


def test_without_a_guest_list_nobody_is_kept_out() -> None:
    firewall = ListFirewall()
    egress.install(BRIDGE, firewall)
    assert ("iptables", LIST) not in firewall.chains
    assert firewall.restored == 0


def test_an_empty_guest_list_keeps_everybody_out() -> None:
    firewall = ListFirewall()
    egress.install(BRIDGE, firewall, [])
    assert firewall.chains["iptables", LIST] == [ANSWERS, "-j DROP"]


def test_a_guest_list_that_stands_is_left_alone() -> None:
    firewall = ListFirewall()
    egress.install(BRIDGE, firewall, GUESTS)
    once = {chain: list(rules) for chain, rules in firewall.chains.items()}
    assert egress.install(BRIDGE, firewall, GUESTS) == []
    assert firewall.chains == once
    assert firewall.restored == 1


@pytest.mark.parametrize("guests", [["10.0.0.1"], ["10.0.0.2", "192.168.7.0/24"], []], ids=str)
def test_a_guest_list_that_changed_is_replaced_in_one_transaction(guests: list[str]) -> None:
    firewall = ListFirewall()
    egress.install(BRIDGE, firewall, GUESTS)
    egress.install(BRIDGE, firewall, guests)
    assert firewall.restored == 2
    fresh = ListFirewall()
    egress.install(BRIDGE, fresh, guests)
    assert firewall.chains == fresh.chains


def test_a_guest_list_that_was_tampered_with_or_unhooked_is_set_again() -> None:
    firewall = ListFirewall()
    egress.install(BRIDGE, firewall, GUESTS)
    sound = {chain: list(rules) for chain, rules in firewall.chains.items()}
    firewall.chains["iptables", LIST].insert(0, "-j RETURN")
    egress.install(BRIDGE, firewall, GUESTS)
    assert firewall.chains == sound
    firewall.chains["iptables", "DOCKER-USER"].remove(f"-o {BRIDGE} -j {LIST}")
    egress.install(BRIDGE, firewall, GUESTS)
    assert firewall.chains == sound


def test_withdrawing_takes_the_guest_list_too() -> None:
    firewall = ListFirewall()
    before = {chain: list(rules) for chain, rules in firewall.chains.items()}
    egress.install(BRIDGE, firewall, GUESTS)
    egress.withdraw(BRIDGE, firewall)
    assert firewall.chains == before


def test_two_installations_have_a_guest_list_each() -> None:
    firewall = ListFirewall()
    egress.install(BRIDGE, firewall, ["10.0.0.1"])
    egress.install("spnother", firewall, ["10.0.0.2"])
    egress.withdraw("spnother", firewall)
    assert "-s 10.0.0.1/32 -j RETURN" in firewall.chains["iptables", LIST]
    assert ("iptables", "SPNOTHER-IN") not in firewall.chains


def test_a_guest_that_is_no_address_is_refused_before_anything_is_set() -> None:
    firewall = ListFirewall()
    with pytest.raises(ValueError, match="proxy"):
        egress.guest_list(BRIDGE, ["proxy.example.org"])
    assert firewall.restored == 0


def test_a_guest_list_that_can_not_be_set_is_told() -> None:
    warnings = egress.install(BRIDGE, RefusingFirewall(), GUESTS)
    (about_guests,) = [text for text in warnings if "Others than the proxy" in text]
    assert "Permission denied (you must be root)" in about_guests


def test_the_name_of_a_guest_list_is_one_that_iptables_takes() -> None:
    """A chain's name has at most 28 characters, an interface's at most 15."""
    (made, *_) = egress.guest_list("s" * 15, [])
    assert len(made.removeprefix("-N ")) <= 28


def test_without_root_the_warning_says_why_and_names_the_exact_commands() -> None:
    (warning,) = egress.install(BRIDGE, RefusingFirewall())
    assert "Permission denied (you must be root)" in warning
    for chain in ("DOCKER-USER", "INPUT"):
        command = f"iptables -w 5 -I {chain} {MATCH}".replace("!", "'!'")
        assert command in warning


def test_without_ip6tables_nobody_is_bothered() -> None:
    assert egress.install(BRIDGE, ListFirewall(ipv6=())) == []


@pytest.mark.parametrize("bridged_traffic", ["0\n", ""])
def test_neighbours_that_bypass_the_firewall_are_told(bridged_traffic: str) -> None:
    (warning,) = egress.install(BRIDGE, ListFirewall(bridged_traffic=bridged_traffic))
    assert "sysctl -w net.bridge.bridge-nf-call-iptables=1" in warning


def test_a_program_that_is_missing_is_an_outcome() -> None:
    assert egress.run_here(("no-such-program-here",)).code == 127


def test_a_command_is_run_with_its_output_and_code() -> None:
    outcome = egress.run_here(("sh", "-c", "echo out; echo err >&2; exit 3"))
    assert (outcome.code, outcome.output) == (3, "out\nerr\n")
