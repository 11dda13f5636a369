"""What operators learn about this machine's clock: whether it differs from the application's time.

Called by `health` and `admin`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta

from prometheus_client.core import GaugeMetricFamily, Metric

from orchestrator.domain import duration
from orchestrator.entrypoints.api.answers import pool as answers
from orchestrator.services.deps import Deps

_WARNED_FOR = timedelta(days=1)


def check(deps: Deps) -> answers.Check:
    """For /ready. A clock that was set stops nothing, so it is no reason not to be ready."""
    return {"ok": True, "detail": _describe(deps) or "agrees with the time that SpawnAI counts"}


def warnings(deps: Deps) -> Sequence[str]:
    """For the overview: for a day after the jump."""
    description = _describe(deps)
    if not description:
        return []
    jumped_at = deps.clock.jumped_at()
    is_recent = jumped_at is None or deps.clock.now() - jumped_at < _WARNED_FOR
    return [description] if is_recent else []


def metrics(deps: Deps) -> Iterable[Metric]:
    yield GaugeMetricFamily(
        "spawn_clock_offset_seconds",
        "How far this machine's clock is ahead of the time that SpawnAI counts",
        value=deps.clock.offset().total_seconds(),
    )


def _describe(deps: Deps) -> str:
    offset_s = deps.clock.offset().total_seconds()
    if not offset_s:
        return ""
    direction = "ahead of" if offset_s > 0 else "behind"
    return (
        f"this machine's clock was set: it is {duration.to_text(abs(offset_s))} {direction} the"
        " time that SpawnAI counts; nothing expires or is deleted because of that"
    )
