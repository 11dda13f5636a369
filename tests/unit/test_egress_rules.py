"""The firewall rules, carried out on firewalls made of lists."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest

from orchestrator.adapters import egress
from orchestrator.adapters.egress import CommandOutcome

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

    def __call__(self, argv: Sequence[str]) -> CommandOutcome:
        if argv[0] == "cat":
            return CommandOutcome(code=0, output=self.bridged_traffic)
        program, _wait, _seconds, action, chain, *match = argv
        rules = self.chains.get((program, chain))
        if rules is None:
            return CommandOutcome(code=1, output="iptables: No chain/target/match by that name.\n")
        rule = " ".join(match)
        if action == "-I":
            rules.insert(0, rule)
            return CommandOutcome(code=0, output="")
        if rule not in rules:
            return CommandOutcome(code=1, output="iptables: Bad rule.\n")
        if action == "-D":
            rules.remove(rule)
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
