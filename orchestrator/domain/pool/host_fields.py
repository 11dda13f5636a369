"""Checks of what people write about a host: address, name, labels, region and slots.

Operators describe hosts, and users wish for them, in the same words.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from orchestrator.domain import errors, urls

_SLOT_MEMORY_BYTES = 256 * 1024**2
_SLOTS_PER_CPU = 16
_SLOTS_MAX = 200
LABELS_MAX = 32  # each one of a wish is a condition of its own in the database
ADDRESS_MAX = 300
NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?")
_USER = r"[a-z_][a-z0-9_-]{0,31}"
_HOST = r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,251}[A-Za-z0-9_])?"  # a name or an IPv4 address
_IPV6 = r"[0-9A-Fa-f:]{2,39}(%[A-Za-z0-9._-]{1,15})?"
_PORT = "[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]"
ADDRESS = re.compile(rf"ssh://({_USER})@({_HOST}|\[{_IPV6}\])(:({_PORT}))?/?")
_OCTET = "([1-9]?[0-9]|1[0-9]{2}|2[0-4][0-9]|25[0-5])"
# Not 0.0.0.0/8, which names no host, and not 224.0.0.0/4, which names many.
_FIRST_OCTET = "([1-9][0-9]?|1[0-9]{2}|2[01][0-9]|22[0-3]|24[0-9]|25[0-5])"
PUBLISH_ADDRESS = re.compile(rf"{_FIRST_OCTET}(\.{_OCTET}){{3}}")
_SSH_PORT = 22


@dataclass(frozen=True, kw_only=True)
class HostAddress:
    """Where we reach a host by SSH."""

    user: str
    host: str  # name or address, IPv6 without brackets
    port: int = _SSH_PORT

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _SSH_PORT else f":{self.port}"
        return f"ssh://{self.user}@{host}{port}"


def parse_address(text: str) -> HostAddress:
    """Parse "ssh://user@host[:port]". Raises errors.InvalidInput, which says what is wrong."""
    match = ADDRESS.fullmatch(text) if len(text) <= ADDRESS_MAX else None
    if match is None:
        raise errors.InvalidInput(_address_problem(text), field="address")
    groups = match.groups()
    user, host, port = groups[0], groups[1].strip("[]"), groups[-1]
    return HostAddress(user=user, host=host, port=int(port or _SSH_PORT))


def _address_problem(text: str) -> str:
    """What is wrong with the text. Repeats no secret that may be in it."""
    if len(text) > ADDRESS_MAX or not text.isprintable():
        return (
            f"that is not an address like ssh://root@10.0.0.5: use at most {ADDRESS_MAX} printable"
            " characters"
        )
    problem = (
        f"{urls.without_secrets(text)!r} is not an address like ssh://root@10.0.0.5 or"
        " ssh://root@10.0.0.5:2222"
    )
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return problem
    if parts.scheme != "ssh" or not parts.hostname:
        return problem
    if parts.password is not None:
        return "leave the password out of the address: we log in to hosts with our key only"
    if not parts.username or not re.fullmatch(_USER, parts.username):
        return f"{problem}: name the user to log in as"
    return problem


def is_name(text: str) -> bool:
    """Whether a host may have this name. Checked before any look-up."""
    return bool(NAME.fullmatch(text))


def checked_name(name: str) -> str:
    """The name, if a host may have it. Raises errors.InvalidInput if not."""
    if is_name(name):
        return name
    raise errors.InvalidInput(
        f"{errors.quoted(name)} can't name a host: use up to 32 of a-z, 0-9 and hyphens,"
        " e.g. paris-1",
        field="name",
    )


def checked_publish_address(text: str) -> str:
    """The address, if it is one single IPv4 address. Raises errors.InvalidInput if not."""
    if PUBLISH_ADDRESS.fullmatch(text):
        return text
    try:
        ipaddress.IPv4Address(text)
    except ValueError as error:
        raise errors.InvalidInput(
            f"{errors.quoted(text)} is no IPv4 address: give the host's address at which the proxy"
            " reaches it",
            field="publish_address",
        ) from error
    raise errors.InvalidInput(
        f"{text} would publish apps on every network of the host: give one address of it",
        field="publish_address",
    )


def checked_labels(labels: Mapping[str, str]) -> Mapping[str, str]:
    """The labels, sorted by key. Raises errors.InvalidInput unless they are few plain words."""
    if len(labels) > LABELS_MAX:
        raise errors.InvalidInput(
            f"there are at most {LABELS_MAX} labels; leave out some",
            field="labels",
            limit=LABELS_MAX,
        )
    for key, value in labels.items():
        if not LABEL.fullmatch(key) or (value and not LABEL.fullmatch(value)):
            raise errors.InvalidInput(
                f"{errors.quoted(f'{key}={value}')} is not a label: use letters, digits and ._/-"
                " (63 at most)",
                field="labels",
            )
    return dict(sorted(labels.items()))


def checked_region(text: str) -> str:
    """The region: a plain word, or "" for none. Raises errors.InvalidInput for anything else."""
    if text and not LABEL.fullmatch(text):
        raise errors.InvalidInput(
            f"{errors.quoted(text)} is not a region: use letters, digits and ._/- (63 at most),"
            " e.g. eu-west",
            field="region",
        )
    return text


def default_slots(*, memory_bytes: int, cpus: int) -> int:
    """The number of slots of a machine whose operator sets none.

    A warm sandbox takes under 30 MB, with interpreters that wait for the app 90 MB, and a small app
    40-120 MB, so 256 MiB per slot leave room for the system. Sandboxes share CPUs, so CPUs limit
    the number far less.
    """
    return max(1, min(memory_bytes // _SLOT_MEMORY_BYTES, cpus * _SLOTS_PER_CPU, _SLOTS_MAX))
