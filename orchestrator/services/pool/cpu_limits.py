"""Gives a sandbox the CPU limit that it is to have. The limits loop decides by domain.pool, and
calls this."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.domain import errors
from orchestrator.domain.pool.cpu_limits import CpuChange
from orchestrator.domain.pool.host import Host
from orchestrator.services.deps import Deps
from orchestrator.services.pool import reconcile


def change(deps: Deps, host: Host, wanted: CpuChange) -> None:
    """Change the limit of one sandbox. Blocks for as long as Docker does.

    Who dies in between leaves a sandbox that is recorded as raised, and the next pass goes on. The
    record may say so of one that isn't, but never the other way round. The first change on a host
    shows whether its engine can do that. Raises errors.EngineUnavailable, errors.NotFound, and
    errors.SandboxRefused (cpu_limit_refused).
    """
    holder = wanted.holder
    engine = deps.engines.for_host(host)
    if wanted.raised:
        deps.store.sandboxes.set_raised(holder.sandbox_id, raised=True)
    try:
        engine.limit_cpus(holder.container_id, wanted.cpus)
    except errors.SandboxRefused:
        if wanted.raised:
            deps.store.sandboxes.set_raised(holder.sandbox_id, raised=False)
        if reconcile.is_running(engine, holder.sandbox_id):  # it hasn't just ended
            _record(deps, host, can=False)
        raise
    if not wanted.raised:
        deps.store.sandboxes.set_raised(holder.sandbox_id, raised=False)
    _record(deps, host, can=True)


def _record(deps: Deps, host: Host, *, can: bool) -> None:
    """Record whether the host's engine can change limits."""
    if host.changes_cpus is not can:
        deps.store.hosts.change(host.id, lambda current: replace(current, changes_cpus=can))
