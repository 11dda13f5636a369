"""Checks the firewall of a machine with Docker: this one or a host. Pure. Used by `engine` and
`host_fitness`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from orchestrator.entrypoints.cli.findings import Finding, ok, problem, warning

_NAME = "iptables"


def check_firewall(failure: str, tables: Mapping[str, int]) -> Iterator[Finding]:
    """Whether our rules can be set, and whether other rules may be in their way.

    `failure`: what iptables says if it can't be used, else "". `tables`: how many rules each of its
    kinds has, by its name.
    """
    if failure:
        is_missing = "not found" in failure or "not installed" in failure
        yield problem(
            _NAME,
            "is not installed"
            if is_missing
            else f"the rules that keep sandboxes in can't be set: {failure}",
            "apt-get install iptables" if is_missing else "Use root, or a user with sudo -n",
            "iptables_unusable",
        )
    else:
        yield ok(_NAME, "usable: the rules that keep sandboxes in can be set")
    if min(tables.get("legacy", 0), tables.get("nft", 0)) > 0:
        yield warning(
            "firewall",
            f"both kinds of iptables have rules, legacy {tables['legacy']} and nft"
            f" {tables['nft']}: packets have to pass both. Ours hold in either, but rules that"
            " Docker doesn't know of may keep visitors from the apps",
            "Look at them: iptables-legacy-save; iptables-nft-save. If a kind has only old rules,"
            " delete them, e.g. iptables-legacy -P FORWARD ACCEPT && iptables-legacy -F, or reboot",
        )
