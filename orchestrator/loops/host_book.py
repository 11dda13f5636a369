"""The hosts as the daemon's passes know them.

A pass that reads every host each second costs as much as the pool is large, though nearly nothing
changes. So each look reads the ids, and the rows of those hosts alone that may matter now; the
others are as they were read last. Whoever writes to a host decides on its row as it is then.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from orchestrator.domain.ids import HostId
from orchestrator.domain.pool.host import Host, StartCurve
from orchestrator.services.deps import Deps


@dataclass(frozen=True, kw_only=True)
class Look:
    """The hosts at one moment."""

    hosts: Mapping[HostId, Host]  # all, in the order of the store
    read: Collection[HostId]  # those whose rows were read for this look
    in_turn: Collection[HostId]  # those of them whose turn it was
    version: int  # grows with every change but those that happen all the time

    def pick(self, host_ids: Collection[HostId]) -> Sequence[Host]:
        """These hosts, in the order of the store, without those that have left."""
        if len(host_ids) >= len(self.hosts):
            return [host for host_id, host in self.hosts.items() if host_id in host_ids]
        ordered = (self.hosts[host_id] for host_id in host_ids if host_id in self.hosts)
        return sorted(ordered, key=lambda host: (host.created_at, host.id))


class Turns:
    """Lets all hosts take turns, a few at each pass, so that no change is missed for long."""

    def __init__(self, *, passes: int, at_most: int) -> None:
        """A round of all hosts takes so many passes. In a pool where that would be more than
        `at_most` hosts at a pass, it takes longer."""
        self._passes = passes
        self._at_most = at_most
        self._next = 0

    def take(self, host_ids: Sequence[HostId]) -> Sequence[HostId]:
        """The hosts whose turn it is."""
        size = min(self._at_most, math.ceil(len(host_ids) / self._passes))
        begin = self._next % max(1, len(host_ids))
        self._next = begin + size
        return [*host_ids, *host_ids[:size]][begin : begin + size]


class HostBook:
    """Remembers the hosts. One per daemon; the loops share it."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        self._lock = threading.Lock()
        self._ids: Sequence[HostId] = ()
        self._hosts: Mapping[HostId, Host] = {}
        self._restless: Collection[HostId] = ()  # at the last look: they may have come to rest
        self._version = 0

    def look(self, also: Collection[HostId] = (), turns: Turns | None = None) -> Look:
        """Read what may have changed: hosts that are new, or aren't simply UP, or weren't at the
        last look, and `also` these, and those whose turn it is. Raises errors.Temporary."""
        with self._lock:
            reads = self._deps.store.pool
            host_ids = reads.host_ids()
            restless = reads.restless_hosts(self._deps.image())
            in_turn = turns.take(host_ids) if turns else ()
            due = {*restless, *self._restless, *also, *in_turn}
            stored = set(host_ids)
            due.update(stored - self._hosts.keys())
            hosts = {host.id: host for host in reads.hosts(due & stored)}
            self._take(host_ids, hosts)
            self._restless = restless
            return self._as_now(hosts, in_turn)

    def note(self, hosts: Sequence[Host]) -> Look:
        """Take over what was just written to these hosts."""
        with self._lock:
            known = {host.id: host for host in hosts if host.id in self._hosts}
            self._take(self._ids, known)
            return self._as_now(known, ())

    def _as_now(self, read: Mapping[HostId, Host], in_turn: Collection[HostId]) -> Look:
        return Look(hosts=self._hosts, read=read.keys(), in_turn=in_turn, version=self._version)

    def _take(self, host_ids: Sequence[HostId], read: Mapping[HostId, Host]) -> None:
        """Replace what was read. The mapping is never changed: others hold it."""
        before = self._hosts
        if host_ids != self._ids:
            self._ids = host_ids
            # A host may have left between the two reads.
            stored = (host_id for host_id in host_ids if host_id in read or host_id in before)
            self._hosts = {host_id: read.get(host_id) or before[host_id] for host_id in stored}
        elif read:
            self._hosts = {**before, **read}
        self._version += before.keys() != self._hosts.keys() or any(
            _settled(host) != _settled(before[host_id]) for host_id, host in read.items()
        )


def _settled(host: Host) -> Host:
    """The host without what every answer and every start changes."""
    return replace(host, seen_at=None, starts=StartCurve())
