"""Which providers are reached without the environment's proxy, and what is wrong with it. Pure.

The gateway chooses its connections by this; `/ready` and `spawnctl doctor` name a bad proxy.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

_LOCAL_DOMAINS = (".localhost", ".local", ".internal", ".lan", ".home.arpa")
_SCHEMES = ("http", "https")
# In the order in which the client looks for them.
_VARIABLES = ("http_proxy", "https_proxy", "all_proxy")


def is_private(base_url: str) -> bool:
    """Whether a provider is on this machine or in its network, as far as its name tells."""
    host = (urlsplit(base_url).hostname or "").rstrip(".").lower()
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return "." not in host or host.endswith(_LOCAL_DOMAINS)
    return not address.is_global


def find_fault(environment: Mapping[str, str]) -> str | None:
    """What is wrong with the first bad proxy of the environment. It names the variable, and never
    its value, which may have a password."""
    for name in (*_VARIABLES, *map(str.upper, _VARIABLES)):
        fault = _fault(environment.get(name, ""))
        if fault:
            return f"{name} {fault}"
    return None


def _fault(url: str) -> str | None:
    if not url:
        return None
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, _ = parts.hostname, parts.port  # both are read on demand, and may be wrong
    except ValueError:
        return "is not a URL such as http://proxy.example:3128"
    if parts.scheme.lower() not in _SCHEMES:
        return f"has the scheme {parts.scheme[:20]}: only http and https proxies can be used"
    if not host or any(not char.isprintable() or char.isspace() for char in url):
        return "is not a URL such as http://proxy.example:3128"
    return None
