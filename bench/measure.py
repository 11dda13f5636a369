"""Statistics of samples, and the table that a run prints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table."""

    name: str
    p50: str
    p95: str
    ratio: str  # to the bare run's p50, in this same run
    target: str
    met: bool | None  # None: there is no target


def percentile(samples: Sequence[float], share: float) -> float:
    """The smallest sample that is not exceeded by at least `share` (0..1) of the samples."""
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def timed(call: Callable[[], object]) -> float:
    """Seconds that one call took."""
    started_at = time.perf_counter()
    call()
    return time.perf_counter() - started_at


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| what | p50 | p95 | ratio to bare | target | met |",
        "|---|---:|---:|---:|---|---|",
    ]
    verdict = {True: "yes", False: "NO", None: ""}
    lines += [
        f"| {row.name} | {row.p50} | {row.p95} | {row.ratio} | {row.target} | {verdict[row.met]} |"
        for row in rows
    ]
    return "\n".join(lines)


def ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"
