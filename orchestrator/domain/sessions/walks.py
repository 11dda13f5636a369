"""What the walks of an app's public address have shown, and what follows from it. Pure.

The process `agents` walks and writes it down (`services.sessions.walks`); the planner reads it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from orchestrator.contract.health import PATIENCE_S, Condition, Finding

_PAUSES_S = (0.3, 5.0)  # after the first failed walk; it doubles with each one, up to the last
_UNWELL_MAX = 5  # walks, over some seconds: an app may be busy with its first requests
_LATEST = timedelta(seconds=PATIENCE_S + 5)  # for a walk, and its turn before it
# For an app that we couldn't reach, once we can: the pause before the next walk, and that walk.
_SLACK = timedelta(seconds=_PAUSES_S[1] + PATIENCE_S + 5)


@dataclass(frozen=True, kw_only=True)
class Walked:
    """What the walks of one assignment have shown so far."""

    condition: Condition | None  # what the last one has shown; None: it is still under way
    at: datetime  # when that was seen, or when the walk under way began
    problem: str = ""  # a sentence; empty if the app is well
    failed: int = 0  # walks in a row that haven't shown that the app is well
    unreached_at: datetime | None = None  # the last time that a walk didn't get to the app

    @property
    def is_first(self) -> bool:
        """Whether nothing is known of the app yet: its first walk is under way."""
        return self.condition is None and not self.failed

    @property
    def is_given_up(self) -> bool:
        """Whether the app answers, and has been unwell for too long."""
        return self.condition is Condition.UNWELL and self.failed >= _UNWELL_MAX

    @property
    def is_news(self) -> bool:
        """Whether converge has something to decide, after those walks that it knows of."""
        return self.condition is Condition.WELL or self.failed == 1 or self.is_given_up

    @property
    def next_at(self) -> datetime:
        """When the next walk begins, after one that has failed."""
        return self.at + pause_after(self.failed)

    @property
    def overdue_at(self) -> datetime:
        """When the next result should have come, unless the process that walks has ended."""
        return (self.at if self.condition is None else self.next_at) + _LATEST

    @property
    def not_late_before(self) -> datetime | None:
        """What is between us and the app is ours: that time doesn't count as the app's."""
        return None if self.unreached_at is None else self.unreached_at + _SLACK


def begin(before: Walked | None, now: datetime) -> Walked:
    """A walk that takes a while is under way."""
    return replace(before or Walked(condition=None, at=now), condition=None, at=now)


def add(before: Walked | None, finding: Finding, now: datetime) -> Walked:
    """The result of a walk, after those before it."""
    is_well = finding.condition is Condition.WELL
    unreached_at = before.unreached_at if before is not None else None
    return Walked(
        condition=finding.condition,
        at=now,
        problem=finding.problem,
        failed=0 if is_well else 1 + (before.failed if before is not None else 0),
        unreached_at=now if finding.condition is Condition.UNREACHED else unreached_at,
    )


def pause_after(failed: int) -> timedelta:
    """The pause after `failed` walks in a row: 0.3 s, 0.6 s, 1.2 s and so on, to 5 s."""
    first_s, last_s = _PAUSES_S
    return timedelta(seconds=min(first_s * 2 ** min(max(failed, 1) - 1, 10), last_s))
