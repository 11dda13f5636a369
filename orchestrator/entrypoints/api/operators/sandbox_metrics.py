"""What the metrics say of sandboxes: their states, and their CPU limits. `health` calls it."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import GaugeMetricFamily, Metric

from orchestrator.domain.pool.cpu_limits import CpuUse
from orchestrator.domain.pool.sandbox import SandboxState
from orchestrator.services.deps import Deps


def collect(deps: Deps) -> Iterable[Metric]:
    """Counted in the store."""
    by_state = GaugeMetricFamily("spawn_sandboxes", "Sandboxes by state", labels=["state"])
    raised = GaugeMetricFamily(
        "spawn_sandboxes_raised",
        "Sandboxes that have the CPU limit of a start, by state",
        labels=["state"],
    )
    sandboxes = deps.store.sandboxes.list()
    for state in SandboxState:
        if state is not SandboxState.GONE:
            in_state = [sandbox for sandbox in sandboxes if sandbox.state is state]
            by_state.add_metric([state], len(in_state))
            raised.add_metric([state], sum(sandbox.raised for sandbox in in_state))
    yield by_state
    yield raised
    yield from _cpu_metrics(deps)


def _cpu_metrics(deps: Deps) -> Iterable[Metric]:
    holders = deps.store.sandboxes.cpu_holders()
    late = sum(holder.raised and holder.use is CpuUse.SERVING for holder in holders)
    yield GaugeMetricFamily(
        "spawn_cpu_limits_late",
        "READY apps that still have the CPU limit of a start; none should have it for long",
        value=late,
    )
    can = GaugeMetricFamily(
        "spawn_host_changes_cpus",
        "Whether a host's engine can change the CPU limit of a sandbox; none tried: left out",
        labels=["host"],
    )
    for host in deps.store.hosts.list():
        if host.changes_cpus is not None:
            can.add_metric([host.name], float(host.changes_cpus))
    yield can
