"""Tells one agent that hangs from many that fall silent together.

An agent that is silent alone has failed. If many are silent at once, it is far more likely that
nobody can hear them: then nothing may be destroyed. services.agents.presence decides with it.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from orchestrator.domain.ids import HostId

# An agent that works is heard every 35 s at the latest: a poll waits for 25 s, and a visit sooner
# than 10 s after the last one isn't written. When the first agent of an outage has been silent for
# SILENCE_MAX, the silence of all the others therefore exceeds OVERDUE.
OVERDUE = timedelta(seconds=40)
SILENCE_MAX = timedelta(seconds=75)
TOGETHER_MIN = 3  # agents; fewer are never silent together
_TOGETHER_SHARE = 0.25


@dataclass(frozen=True, kw_only=True)
class AgentGroup:
    """The agents of one owner on one host whose sandboxes are WARM or CLAIMED."""

    host_id: HostId
    owner: str  # a user; a sandbox of the warm pool is a group of its own
    agents: int
    overdue: int = 0  # not heard for longer than OVERDUE


@dataclass(frozen=True, kw_only=True)
class AgentCounts:
    """Some agents, and how many of them are overdue."""

    agents: int = 0
    overdue: int = 0
    owners: int = 0
    overdue_owners: int = 0  # with at least one agent that is overdue

    @property
    def are_silent_together(self) -> bool:
        """Whether too many are overdue for it to be their own fault.

        A user's agents count once: the user may have silenced them.
        """
        return are_too_many(self.overdue_owners, self.owners)

    @property
    def are_all_silent(self) -> bool:
        """Whether nobody at all is heard."""
        return self.overdue >= TOGETHER_MIN and self.overdue == self.agents


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


def are_too_many(hit: int, owners: int) -> bool:
    """Whether something hit too many of the owners to be their own fault: three or more, and over
    a quarter of all."""
    return hit >= TOGETHER_MIN and hit > owners * _TOGETHER_SHARE


def find_silence(groups: Iterable[AgentGroup]) -> Silence:
    """Judge the agents of all hosts together, and those of each host."""
    by_host: defaultdict[HostId, list[AgentGroup]] = defaultdict(list)
    for group in groups:
        by_host[group.host_id].append(group)
    total = _count(itertools.chain.from_iterable(by_host.values()))
    return Silence(
        everywhere=total.are_silent_together or total.are_all_silent,
        hosts=frozenset(
            host_id for host_id, of_host in by_host.items() if _count(of_host).are_silent_together
        ),
        total=total,
    )


def _count(groups: Iterable[AgentGroup]) -> AgentCounts:
    agents = overdue = 0
    owners, overdue_owners = set(), set()
    for group in groups:
        agents += group.agents
        overdue += group.overdue
        owners.add(group.owner)
        if group.overdue:
            overdue_owners.add(group.owner)
    return AgentCounts(
        agents=agents,
        overdue=overdue,
        owners=len(owners),
        overdue_owners=len(overdue_owners),
    )
