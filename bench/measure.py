"""Statistics of samples, and the rows of the table that a run prints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table. What a row doesn't have is empty."""

    name: str
    p50: str = ""
    p95: str = ""
    rate: str = ""  # how many a second
    cpu: str = ""  # CPU time of the control plane for each
    ratio: str = ""  # to the bare counterpart, in this same run
    target: str = ""
    met: bool | None = None  # None: there is no target


@dataclass(frozen=True, kw_only=True)
class Section:
    """What one group measured."""

    rows: Sequence[Row]
    notes: Sequence[str] = ()  # sentences below the table


@dataclass(frozen=True, kw_only=True)
class Limit:
    """A figure and the most, or the least, that it may be."""

    text: str  # for people, as the table has it
    figure: float
    most: float = math.inf
    least: float = -math.inf

    @property
    def is_met(self) -> bool:
        return self.least <= self.figure <= self.most


def targets(*limits: Limit) -> tuple[str, bool | None]:
    """The text of these targets, and whether all are met; those that are missed say by what."""
    if not limits:
        return "", None
    texts = [
        limit.text if limit.is_met else f"**{limit.text}** ({limit.figure:.2f})" for limit in limits
    ]
    return "; ".join(texts), all(limit.is_met for limit in limits)


def percentile(samples: Sequence[float], share: float) -> float:
    """The smallest sample that is not exceeded by at least `share` (0..1) of the samples."""
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def p50(samples: Sequence[float]) -> float:
    """The median, as `percentile` has it."""
    return percentile(samples, 0.5)


def latency(
    name: str,
    samples: Sequence[float],
    *limits: Limit,
    bare: Sequence[float] = (),
    rate: str = "",
    cpu: str = "",
) -> Row:
    """The row of a latency in seconds. `bare`: the samples of its counterpart."""
    target, met = targets(*limits)
    return Row(
        name=name,
        p50=ms(p50(samples)),
        p95=ms(percentile(samples, 0.95)),
        rate=rate,
        cpu=cpu,
        ratio=f"{p50(samples) / p50(bare):.2f}" if bare else "",
        target=target,
        met=met,
    )


def timed(call: Callable[[], object]) -> float:
    """Seconds that one call took."""
    started_at = time.perf_counter()
    call()
    return time.perf_counter() - started_at


def ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"
