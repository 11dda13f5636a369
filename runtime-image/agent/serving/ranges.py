"""Which bytes a request asks for: RFC 9110, section 14. Pure; used by `static_files.py`."""

from __future__ import annotations

import re

# No position in a file has more digits, and int() refuses 5,000 of them.
_ONE_RANGE = re.compile(r"bytes=[ \t]*([0-9]{0,1000})-([0-9]{0,1000})[ \t]*", re.IGNORECASE)


def asked_bytes(header: str, size_bytes: int) -> range | None:
    """The bytes that a Range header asks for of a file with this size.

    None if the whole file is the answer: the header isn't understood, or asks for several ranges,
    which a server may ignore. Empty if the file has none of these bytes, which is a 416.
    """
    match = _ONE_RANGE.fullmatch(header)
    if match is None or size_bytes == 0:
        return None
    first, last = match.groups()
    if first and last and int(last) < int(first):
        return None
    if first:
        return range(size_bytes)[int(first) : int(last) + 1 if last else None]
    if last:  # the last so many bytes
        return range(max(0, size_bytes - int(last)), size_bytes)
    return None
