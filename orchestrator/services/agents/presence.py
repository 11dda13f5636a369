"""Tells since when agents could be heard. The daemon's reconcile loop and the API's checks ask.

While agents can't reach us, or many of them are silent together, their silence is not their fault.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from orchestrator.domain.ids import HostId
from orchestrator.domain.pool.host import Host, HostState
from orchestrator.domain.pool.silence import (
    OVERDUE,
    SILENCE_MAX,
    TOGETHER_MIN,
    AgentGroup,
    Hearing,
    Silence,
    find_silence,
)
from orchestrator.services.deps import Deps

# Looks follow each other within seconds. After a longer time the machine was suspended, or this
# process was stopped: agents on this machine have slept too, or nobody could be heard.
LOOK_MAX = timedelta(seconds=15)


def silence_now(deps: Deps) -> Silence:
    """Which agents are silent together. Hosts that aren't UP don't count: nobody expects to hear
    their agents. A host that has just come up gets some time."""
    overdue_before = deps.clock.now() - OVERDUE
    groups = deps.store.sandboxes.agent_groups(overdue_before)
    hosts = {host.id: host for host in deps.store.hosts.list() if host.state is HostState.UP}
    return find_silence(
        _without_excused(group, hosts[group.host_id], overdue_before)
        for group in groups
        if group.host_id in hosts
    )


@dataclass(kw_only=True)
class ListenerWatch:
    """Watches the agents' listener and the agents, and remembers when they could be heard.

    The listener is asked over the socket that agents use: a process that lives but accepts no
    connection doesn't listen. It may still hear us and not them, so their silence counts too.
    """

    since: datetime
    until: datetime = field(init=False)
    process: str | None = None
    silence: Silence = field(default_factory=lambda: find_silence(()))
    late_hosts: Set[HostId] = frozenset()  # with an agent that should have been heard
    _hosts_since: dict[HostId, datetime] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.until = self.since

    def look(self, deps: Deps) -> None:
        """Ask the listener, and count the agents that are late. Call it every few seconds, before
        hosts are compared."""
        process = deps.listener.process()
        now = deps.clock.now()
        late = deps.store.pool.late_agents(now - OVERDUE)
        self.late_hosts = frozenset(late.values())
        # So few can't be silent together: then nobody else is counted.
        self.silence = silence_now(deps) if len(late) >= TOGETHER_MIN else find_silence(())
        has_slept = now - self.until > LOOK_MAX
        if process is None or process != self.process or self.silence.everywhere or has_slept:
            self.since, self.process = now, process
        self._hosts_since = {
            host_id: since
            for host_id, since in self._hosts_since.items()
            if since > self.since and now - since <= SILENCE_MAX  # later it excuses nobody
        }
        self._hosts_since.update(dict.fromkeys(self.silence.hosts, now))
        self.until = now

    def hearing_of(self, host: Host) -> Hearing:
        """When the agents of this host could be heard, up to the last look."""
        own_since = self._hosts_since.get(host.id, self.since)
        return Hearing(since=max(self.since, own_since, host.state_since), until=self.until)


def _without_excused(group: AgentGroup, host: Host, overdue_before: datetime) -> AgentGroup:
    return replace(group, overdue=0) if host.state_since > overdue_before else group
