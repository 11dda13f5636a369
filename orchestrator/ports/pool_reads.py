"""Port to what the daemon's passes read of the pool, again and again."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from orchestrator.domain.ids import HostId, SandboxId
from orchestrator.domain.pool.host import Host


class PoolReads(Protocol):
    """Reads for passes over large pools. But for what has only ids, an answer is as long as there
    is to do, or as what was asked for, however large the pool is."""

    def host_ids(self) -> Sequence[HostId]:
        """All hosts, in the order of Hosts.list."""

    def restless_hosts(self, image: str) -> Collection[HostId]:
        """The hosts that aren't simply UP: in another state, draining, or without this image."""

    def hosts(self, host_ids: Collection[HostId]) -> Sequence[Host]:
        """These hosts, in any order. One that isn't stored is left out."""

    def living(self, host_ids: Collection[HostId] | None = None) -> Mapping[SandboxId, HostId]:
        """Every sandbox on these hosts, or on all, but GONE ones; with its host."""

    def late_agents(self, before: datetime) -> Mapping[SandboxId, HostId]:
        """The sandboxes whose agent should have been heard, with their hosts: WARM and CLAIMED ones
        that were last heard before then, and CREATING ones that were placed before then."""

    def assigned(self) -> Mapping[SandboxId, int]:
        """The CLAIMED sandboxes, each with the revision of its session: who changes what a sandbox
        is to run changes that."""
