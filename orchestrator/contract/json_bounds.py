"""Bounds the work of reading JSON that somebody else sends. Used by the wire and by the gateway.

Small values cost far more than the bytes that they are: a megabyte of `[[],[],…]` takes a third of
a second, in which no other thread of Python runs, and twenty times its size.
"""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

_STRUCTURE = (b",", b"[", b"{")
# A string, or what begins another value. Nothing here goes back: the time is that of one pass.
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[,\[{]', re.DOTALL)


def check(raw: bytes, values_max: int) -> None:
    """Raise ValueError if this document, in UTF-8, has clearly more than `values_max` values."""
    if sum(map(raw.count, _STRUCTURE)) <= values_max:
        return  # however much of that is text
    # Each value adds two tokens at most: itself if it is a string, and what it begins with.
    surplus = itertools.islice(_TOKEN.finditer(raw), 2 * values_max, None)
    if next(surplus, None) is not None:
        raise ValueError(f"more than {values_max} values")


def decode(raw: bytes, values_max: int) -> Any:
    """The JSON in `raw`. Raises ValueError, also if it has clearly more than `values_max` values or
    is nested too deeply."""
    check(raw, values_max)
    try:
        return json.loads(raw)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
