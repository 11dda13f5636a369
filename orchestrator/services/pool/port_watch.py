"""Looks at the published ports of all apps and warm sandboxes. The daemon's ports loop runs it.

An app whose port is dead is BROKEN, so that its session recovers. A host whose ports can't be
reached is SUSPECT until they can be, and nothing on it is touched, unless it confirms which ports
are dead.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import datetime

from orchestrator.domain import errors
from orchestrator.domain.ids import HostId, SandboxId
from orchestrator.domain.pool.host import Host
from orchestrator.domain.pool.published_ports import (
    DeadPort,
    Judgement,
    PortRecord,
    find_due,
    judge,
)
from orchestrator.domain.pool.sandbox import SandboxState
from orchestrator.services.deps import Deps
from orchestrator.services.pool import claims, reconcile
from orchestrator.slim import structlog

_LOOKS_MAX = 1000  # per pass

log = structlog.get_logger()


class PortWatch:
    """Remembers what the looks have shown. One per daemon; `blames` may be asked by any thread."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        self._records: Mapping[SandboxId, PortRecord] = {}
        self._judgement = Judgement()
        self._confirmed: dict[SandboxId, datetime] = {}  # by `ask`, in other threads
        self._replaced_at: dict[HostId, datetime] = {}

    def blames(self, host_id: HostId) -> bool:
        """Whether this host must not get sandboxes, because its ports can't be reached."""
        return host_id in self._judgement.blamed

    def look(self) -> str:
        """One pass. Returns a summary for the log. Raises errors.Temporary."""
        self._update_records()
        self._look_at_ports()
        before = self._judgement.blamed
        records = self._records.values()
        now = self._deps.clock.now()
        self._judgement = judge(records, before.keys(), self._replaced_at, now)
        self._set_aside_hosts(before)
        broken = sum(self._mark_broken(dead) for dead in self._judgement.dead)
        return f"broken={broken}" if broken else ""

    def failing_hosts(self) -> Collection[HostId]:
        """The hosts to ask which of their ports are dead."""
        return {record.port.host_id for record in self._records.values() if record.failures}

    def ask(self, host: Host) -> str:
        """Ask a host which of its failing ports are dead, although their apps answer it.

        Blocks for as long as the host does. Returns a summary. Raises errors.Temporary.
        """
        failing = {
            record.port.sandbox_id: record.port.endpoint
            for record in self._records.values()
            if record.port.host_id == host.id and record.failures
        }
        dead = self._deps.engines.for_host(host).find_unpublished(failing)
        now = self._deps.clock.now()
        self._confirmed.update(dict.fromkeys(dead, now))
        return f"dead={len(dead)}" if dead else ""

    def _update_records(self) -> None:
        """Begin records of new ports, and forget those of ports that nobody may reach any more."""
        confirmed, self._confirmed = self._confirmed, {}
        records = {}
        for port in self._deps.store.sandboxes.published_ports():
            record = self._records.get(port.sandbox_id)
            record = PortRecord(port=port) if record is None else record.of(port)
            if (confirmed_at := confirmed.get(port.sandbox_id)) is not None:
                record = replace(record, confirmed_at=confirmed_at)
            records[port.sandbox_id] = record
        self._records = records

    def _look_at_ports(self) -> None:
        now = self._deps.clock.now()
        due = find_due(self._records.values(), now)[:_LOOKS_MAX]
        answers = self._deps.port_looks.look([record.port.endpoint for record in due])
        looked_at = {
            record.port.sandbox_id: record.after(answers[record.port.endpoint], now)
            for record in due
            if record.port.endpoint in answers
        }
        self._records = {**self._records, **looked_at}

    def _set_aside_hosts(self, before: Mapping[HostId, str]) -> None:
        """Take the blamed hosts out of placement and claims. The links pass admits them again."""
        blamed = self._judgement.blamed
        ports = [record.port for record in self._records.values()]
        up = {port.host_id for port in ports if port.up_since is not None}
        for host_id, reason in blamed.items():
            if host_id not in before:
                log.error("ports_unreachable", host=host_id, reason=reason)
            if host_id not in up:
                continue
            try:
                claims.mark_suspect(self._deps, host_id, reason)
            except errors.NotFound:
                continue  # it has left the pool
        for host_id in before.keys() - blamed.keys():
            log.warning("ports_reachable_again", host=host_id)

    def _mark_broken(self, dead: DeadPort) -> bool:
        """Mark the sandbox BROKEN, unless it has changed since the look. Returns which."""
        try:
            sandbox = self._deps.store.sandboxes.get(dead.sandbox_id)
            if sandbox.state not in {SandboxState.WARM, SandboxState.CLAIMED}:
                return False
            reconcile.mark_broken(self._deps, sandbox, dead.reason)
        except (errors.StaleWrite, errors.NotFound):
            return False  # the next pass looks again
        self._replaced_at[dead.host_id] = self._deps.clock.now()
        log.warning("port_died", sandbox=sandbox.id, session=sandbox.session_id, reason=dead.reason)
        return True
