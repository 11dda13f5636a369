"""Settings that list networks. Used by the groups."""

from __future__ import annotations

import ipaddress

# The widest private networks, 10.0.0.0/8 and fc00::/7. What is wider holds addresses of strangers.
_SHORTEST_PREFIXES = {4: 8, 6: 7}


def parts(text: str) -> tuple[str, ...]:
    """The parts of a comma-separated setting."""
    return tuple(filter(None, map(str.strip, text.split(","))))


def check(text: str, *, has_ipv6: bool) -> str:
    """The same text. Raises ValueError if it isn't a list of IP addresses and networks, or if one
    of them is so wide that strangers are in it."""
    kind, example = ("IP", "127.0.0.1") if has_ipv6 else ("IPv4", "10.0.0.5")
    for part in parts(text):
        try:
            network = ipaddress.ip_network(part) if has_ipv6 else ipaddress.IPv4Network(part)
        except ValueError:
            raise ValueError(
                f"must be {kind} addresses or networks, comma-separated, e.g. {example},10.1.0.0/16"
            ) from None
        if network.prefixlen < _SHORTEST_PREFIXES[network.version]:
            raise ValueError("must not have networks wider than 10.0.0.0/8 or fc00::/7")
    return text
