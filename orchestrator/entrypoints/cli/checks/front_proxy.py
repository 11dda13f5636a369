"""Checks that visitors behind a proxy in front of ours don't count as one. Used by doctor."""

from __future__ import annotations

import ipaddress

from orchestrator.config import Settings
from orchestrator.entrypoints.cli.findings import Finding, ok, warning

NAME = "addresses"


def check_front_proxy(settings: Settings) -> Finding:
    """Whether something must lead visitors to us, whose word on where they come from doesn't count.

    We have no TLS, and nobody else's visitors reach a proxy that listens on loopback alone.
    """
    addresses = settings.addresses
    is_local = _is_loopback(addresses.http_address)
    is_public = not _is_loopback(addresses.public_host)
    if addresses.front_proxies:
        return ok(NAME, f"{addresses.trusted_proxies} may say who asks")
    if not settings.people.cookie_secure and not (is_local and is_public):
        return ok(NAME, "each client counts by the address from which it comes")
    return warning(
        NAME,
        "a proxy or tunnel seems to stand in front of ours: all visitors count as one address, and"
        " share what one may ask",
        "Set SPAWN_TRUSTED_PROXIES to its address, 127.0.0.1 if it runs on this machine",
    )


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return name == "localhost"
