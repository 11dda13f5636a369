"""Names of hosts on the web: one spelling for each, and who may set cookies for whom.

The settings, the proxy's configuration and the API's guard compare names by this module.
"""

from __future__ import annotations

import ipaddress
import re

# RFC 9110, 7.2: a name or an IPv6 address in brackets, then perhaps a port.
_HEADER = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(?::\d*)?")
_ORIGIN = re.compile(r"https?://(.+)", re.IGNORECASE)  # RFC 6454, 6.2
_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*", re.IGNORECASE)
_NO_NAME = (  # without the text: it may come from the wrong variable, and be a secret
    "must be host names or IP addresses, such as spawn.example.com or 192.168.1.5, without scheme"
    " and port; write names in other alphabets as xn--..."
)


def parse(text: str) -> str:
    """The one spelling of a name or IP address: lower case, IPv6 in brackets. Raises ValueError."""
    name = text.strip().removesuffix(".").lower()
    address = name.removeprefix("[").removesuffix("]")
    if ":" in address:
        try:
            return f"[{ipaddress.IPv6Address(address)}]"
        except ValueError:
            raise ValueError(_NO_NAME) from None
    if not _NAME.fullmatch(name):
        raise ValueError(_NO_NAME)
    return name


def from_header(header: str) -> str:
    """The name in a Host header; "" if it is malformed."""
    match = _HEADER.fullmatch(header)
    if match is None:
        return ""
    try:
        return parse(match[1])
    except ValueError:
        return ""


def from_origin(origin: str) -> str:
    """The name in an Origin header; "" unless it is that of a page over http or https."""
    match = _ORIGIN.fullmatch(origin)
    return from_header(match[1]) if match else ""


def cookie_domain(page: str, apps: str) -> str:
    """The domain for which the apps below `apps` could set cookies that the page gets; "" if there
    is none.

    Browsers accept a cookie for any domain above the one that sets it, but for no single label and
    no public suffix (RFC 6265, 5.3). We don't know the public suffixes: a domain such as co.uk is
    returned too.
    """
    if page.startswith("[") or page.replace(".", "").isdigit():
        return ""
    shared: list[str] = []
    labels = zip(reversed(parse(page).split(".")), reversed(parse(apps).split(".")), strict=False)
    for own, other in labels:
        if own != other:
            break
        shared.insert(0, own)
    return ".".join(shared) if len(shared) > 1 else ""
