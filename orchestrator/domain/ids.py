"""Identifiers and slugs.

An identifier is a prefix and 26 lower-case base32 characters (128 random bits). A slug is 16 such
characters (80 random bits). Drawing random bits is the only impure thing in the domain: no test
depends on the value of an id.
"""

from __future__ import annotations

import base64
import re
import secrets
from typing import NewType

SessionId = NewType("SessionId", str)
SandboxId = NewType("SandboxId", str)
HostId = NewType("HostId", str)
UserId = NewType("UserId", str)
KeyId = NewType("KeyId", str)
Slug = NewType("Slug", str)
Sha256 = NewType("Sha256", str)

SLUG_PATTERN = re.compile(r"[a-z2-7]{16}")
_ID_PATTERN = re.compile(r"[a-z]{3}_[a-z2-7]{26}")


def new_session_id() -> SessionId:
    return SessionId(_new("ses"))


def new_sandbox_id() -> SandboxId:
    return SandboxId(_new("sbx"))


def new_host_id() -> HostId:
    return HostId(_new("hst"))


def new_user_id() -> UserId:
    return UserId(_new("usr"))


def new_key_id() -> KeyId:
    return KeyId(_new("key"))


def new_slug() -> Slug:
    """The public name of an app. It can't be guessed and says nothing about its owner."""
    return Slug(_base32(10))


def is_id(text: str, prefix: str) -> bool:
    """Whether `text` looks like one of our ids with that prefix. Checked before any look-up."""
    return bool(_ID_PATTERN.fullmatch(text)) and text.startswith(prefix + "_")


def _new(prefix: str) -> str:
    return f"{prefix}_{_base32(16)}"


def _base32(size_bytes: int) -> str:
    return base64.b32encode(secrets.token_bytes(size_bytes)).decode().rstrip("=").lower()
