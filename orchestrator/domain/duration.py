"""Durations as people write and read them: 90, "45m", "2h", "1d"."""

from __future__ import annotations

import re

from orchestrator.domain import errors

_FORM = re.compile(r"\s*(\d{1,9})\s*([smhd]?)\s*")
_UNIT_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def parse(text: str | int) -> int:
    """Seconds. Raises errors.InvalidInput (ttl_out_of_range) if `text` is no duration."""
    match = _FORM.fullmatch(str(text))
    if match is None:
        raise errors.InvalidInput(
            f"{errors.quoted(str(text))} is not a duration; write 45m, 2h, 1d or a number of"
            " seconds",
            code="ttl_out_of_range",
            field="ttl",
        )
    return int(match[1]) * _UNIT_S[match[2]]


def to_text(seconds: float) -> str:
    """Seconds as a text for people: "1 d 2 h", "5 min", "12 s"."""
    left = max(0, round(seconds))
    parts = []
    for name, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count} {name}")
    return " ".join(parts[:2]) or "0 s"
