"""Health, readiness and metrics. Readiness says what is wrong, for people and for doctors."""

from __future__ import annotations

import http.client
from collections.abc import Iterable, Sequence
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.responses import Response

from orchestrator.domain import errors
from orchestrator.domain.pool.host import HostState
from orchestrator.domain.pool.refill import short_of_slots
from orchestrator.domain.pool.sandbox import SandboxState
from orchestrator.domain.sessions.session import SessionState
from orchestrator.entrypoints.api.context import Context, context_of
from orchestrator.ports import LinkGauges

router = APIRouter(tags=["health"])

_PROXY_S = 2.0


@router.get("/health")
def health() -> dict[str, str]:
    """This process answers."""
    return {"status": "ok"}


@router.get("/ready")
def ready(request: Request) -> Response:
    """Whether a new session could get its link; 503 and the reasons when not."""
    found = checks(context_of(request))
    # Without a key templates still work: that is said, and is no reason to be taken out.
    well = all(check["ok"] for name, check in found.items() if name != "claude")
    return JSONResponse({"ready": well, "checks": found}, status_code=200 if well else 503)


@router.get("/metrics")
def metrics(request: Request) -> Response:
    """The pool and the sessions, counted in the store at each scrape; the gateway's own counts."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_StoreCollector(context_of(request)))
    counted = generate_latest(context_of(request).board.registry)
    return Response(generate_latest(registry) + counted, media_type=CONTENT_TYPE_LATEST)


def checks(context: Context) -> dict[str, dict[str, Any]]:
    """Each thing that a session needs: whether it is there, and if not what is wrong."""
    deps = context.deps
    found: dict[str, dict[str, Any]] = {}
    try:
        deps.store.ping()
    except errors.Temporary as error:
        return {"database": {"ok": False, "detail": str(error)}}
    found["database"] = {"ok": True, "detail": "answers"}
    try:
        deps.queue.depth()
        found["redis"] = {"ok": True, "detail": "answers"}
    except errors.QueueUnavailable as error:
        found["redis"] = {"ok": False, "detail": str(error)}
    found["docker"] = _docker(context)
    found["proxy"] = _proxy(context)
    found["daemon"] = _daemon(context)
    found["claude"] = _claude(context)
    return found


def _claude(context: Context) -> dict[str, Any]:
    """Whether anybody can be asked for an app, and whether all keys are taken."""
    if not context.settings.llm.can_generate:
        return {"ok": False, "detail": "no ANTHROPIC_API_KEY: templates only"}
    if context.settings.llm.demo:
        return {"ok": True, "detail": "demo: answers are canned"}
    faults = context.board.faults
    if faults:
        return {"ok": False, "detail": "; ".join(faults.values()), "settings": sorted(faults)}
    return {"ok": True, "detail": "a key is configured"}


def _docker(context: Context) -> dict[str, Any]:
    """As the daemon last saw the hosts: this process never talks to Docker."""
    hosts = context.deps.store.hosts.list()
    if any(host.state is HostState.UP for host in hosts):
        return {"ok": True, "detail": f"{len(hosts)} host(s), at least one up"}
    reasons = "; ".join(f"{host.name}: {host.reason or host.state}" for host in hosts)
    return {"ok": False, "detail": reasons or "no host has joined yet"}


def _proxy(context: Context) -> dict[str, Any]:
    """Whether a request comes through it, to ourselves."""
    settings = context.settings
    link = http.client.HTTPConnection(
        settings.addresses.probe_address, settings.addresses.http_port, timeout=_PROXY_S
    )
    try:
        link.request("GET", "/health")
        well = link.getresponse().status == 200
    except (OSError, http.client.HTTPException) as error:
        return {"ok": False, "detail": f"port {settings.addresses.http_port}: {error}"}
    finally:
        link.close()
    return {"ok": well, "detail": "answers" if well else "answers, but not for us"}


def _daemon(context: Context) -> dict[str, Any]:
    """Whether the daemon's loops went round lately: they write when they saw a host."""
    now = context.deps.clock.now()
    holder = context.deps.store.leases.holder("daemon", now)
    if holder is None:
        return {"ok": False, "detail": "no daemon leads; it is starting, or it is down"}
    return {"ok": True, "detail": f"the one on {holder.partition(':')[0]} leads"}


def _links(gauges: Sequence[LinkGauges]) -> Iterable[Metric]:
    """As the daemon posted them."""
    shown = (
        ("spawn_link_up", "Whether the SSH link stands", lambda one: float(one.up)),
        ("spawn_link_docker_up", "Whether Docker answers through it", lambda one: one.docker),
        ("spawn_link_channels", "Channels open through it", lambda one: one.channels),
        ("spawn_link_rtt_seconds", "Round trip of the last byte", lambda one: one.rtt_s),
        ("spawn_link_reconnects", "Reconnects since the daemon started", lambda o: o.reconnects),
    )
    for name, help_text, read in shown:
        family = GaugeMetricFamily(name, help_text, labels=["host"])
        for one in gauges:
            value = read(one)
            if value is not None:
                family.add_metric([one.host], float(value))
        yield family


class _StoreCollector:
    """Gauges read from the store when Prometheus asks."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def collect(self) -> Iterable[Metric]:
        deps = self._context.deps
        sessions = GaugeMetricFamily("spawn_sessions", "Sessions by state", labels=["state"])
        counts = deps.store.sessions.counts()
        for state in SessionState:
            sessions.add_metric([state], counts.get(state, 0))
        yield sessions
        boxes = GaugeMetricFamily("spawn_sandboxes", "Sandboxes by state", labels=["state"])
        live = deps.store.sandboxes.list()
        for box_state in SandboxState:
            if box_state is not SandboxState.GONE:
                boxes.add_metric([box_state], sum(box.state is box_state for box in live))
        yield boxes
        slots = GaugeMetricFamily("spawn_host_slots", "Slots", labels=["host", "kind"])
        up = GaugeMetricFamily("spawn_host_up", "Whether a host is UP", labels=["host"])
        states = GaugeMetricFamily(
            "spawn_host_state", "1 for the state that a host is in", labels=["host", "state"]
        )
        for load in deps.store.hosts.loads():
            slots.add_metric([load.host.name, "total"], load.host.slots)
            slots.add_metric([load.host.name, "used"], load.used)
            up.add_metric([load.host.name], float(load.host.state is HostState.UP))
            for host_state in HostState:
                here = float(load.host.state is host_state)
                states.add_metric([load.host.name, host_state], here)
        yield slots
        yield up
        yield states
        totals = deps.store.hosts.totals()
        yield GaugeMetricFamily(
            "spawn_free_slots", "Free slots of hosts that take placements", value=totals.free_slots
        )
        yield GaugeMetricFamily(
            "spawn_free_slots_short",
            "Slots that the pool lacks to keep SPAWN_FREE_SLOTS free",
            value=short_of_slots(totals, deps.policy.free_slots),
        )
        yield from _links(deps.board.read())
        yield GaugeMetricFamily(
            "spawn_warm_target", "Warm sandboxes wanted", value=deps.policy.warm_target
        )
        try:
            depths = deps.queue.depth()
        except errors.QueueUnavailable:
            return
        queues = GaugeMetricFamily("spawn_queue_depth", "Nudges waiting", labels=["queue"])
        for queue, depth in depths.items():
            queues.add_metric([queue], depth)
        yield queues
