"""Numbers of tokens, as providers write them. Pure. `metering` and `openai_wire` read them here."""

from __future__ import annotations

import math

_COUNT_MAX = 1_000_000_000  # tokens of one kind that a provider can say it has used


def token_count(value: object) -> int | None:
    """A number of tokens within bounds, also if it is text or has a fraction; part of a token
    counts as one. None: it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = value if isinstance(value, int) else float(value)
    except ValueError:
        return None
    if isinstance(number, float) and not math.isfinite(number):
        return None
    return math.ceil(min(max(0, number), _COUNT_MAX))
