"""Tells one agent that hangs from many that fall silent together.

An agent that is silent alone has failed. If many are silent at once, it is far more likely that
nobody can hear them: then nothing may be destroyed. services.agents.presence decides with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from orchestrator.domain.ids import HostId

# An agent that works is heard every 35 s at the latest: a poll waits for 25 s, and a visit sooner
# than 10 s after the last one isn't written. When the first agent of an outage has been silent for
# SILENCE_MAX, the silence of all the others therefore exceeds OVERDUE.
OVERDUE = timedelta(seconds=40)
SILENCE_MAX = timedelta(seconds=75)
_TOGETHER_MIN = 3
_TOGETHER_SHARE = 0.25


@dataclass(frozen=True, kw_only=True)
class AgentCounts:
    """The agents of one host whose sandboxes are WARM or CLAIMED."""

    agents: int = 0
    overdue: int = 0  # not heard for longer than OVERDUE

    @property
    def are_silent_together(self) -> bool:
        """Whether too many are overdue for it to be their own fault."""
        return self.overdue >= _TOGETHER_MIN and self.overdue > self.agents * _TOGETHER_SHARE


@dataclass(frozen=True, kw_only=True)
class Silence:
    """Which agents are silent together right now."""

    everywhere: bool  # over all hosts
    hosts: frozenset[HostId]  # on each of these hosts
    total: AgentCounts

    def __bool__(self) -> bool:
        return self.everywhere or bool(self.hosts)


@dataclass(frozen=True, kw_only=True)
class Hearing:
    """The time in which an agent that works would have been heard."""

    since: datetime
    until: datetime


def find_silence(counts: Mapping[HostId, AgentCounts]) -> Silence:
    """Judge the agents of all hosts together, and those of each host."""
    total = AgentCounts(
        agents=sum(of_host.agents for of_host in counts.values()),
        overdue=sum(of_host.overdue for of_host in counts.values()),
    )
    silent = (host_id for host_id, of_host in counts.items() if of_host.are_silent_together)
    return Silence(everywhere=total.are_silent_together, hosts=frozenset(silent), total=total)
