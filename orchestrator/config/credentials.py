"""What may be wrong with a key or an address that somebody copied. Used by the groups of settings.

Faults name a character and its place, never the value.
"""

from __future__ import annotations

import unicodedata
from urllib.parse import urlsplit

_QUOTES = frozenset("\"'`")
# The characters that people can't see and that have no name in Unicode.
_NAMES = {"\r": "carriage return", "\n": "line feed", "\t": "tab", "\0": "null"}


def find_key_fault(key: str) -> str | None:
    """Why no HTTP header can hold this key, or why it is hardly meant like this."""
    for place, char in enumerate(key, start=1):
        if char in _QUOTES or not "!" <= char <= "~":
            return f"has {_name(char)} as character {place} of {len(key)}: take it out"
    return None


def find_url_fault(url: str) -> str | None:
    """Why nobody can be reached at this address. None for an empty one."""
    if not url:
        return None
    for place, char in enumerate(url, start=1):
        if char in _QUOTES or not "!" <= char <= "~":
            return f"has {_name(char)} as character {place} of {len(url)}: take it out"
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname)
        _ = parts.port
    except ValueError:
        is_address = False
    return None if is_address else "must be an address such as https://api.example.com"


def _name(char: str) -> str:
    name = _NAMES.get(char) or unicodedata.name(char, "a control character").lower()
    return f"U+{ord(char):04X} ({name})"
