"""Which addresses count as one, as the proxy counts them. Used where something is per address."""

from __future__ import annotations

import ipaddress

_HOUSE_BITS = 64  # of an IPv6 address


def network_of(host: str) -> str:
    """The address of a client; of IPv6 the network of its house. What is no address stays as it
    is."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, _HOUSE_BITS), strict=False))
