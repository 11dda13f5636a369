"""Endpoints for health, readiness and metrics. Readiness says what is wrong.

The proxy, Prometheus and `spawnctl doctor` use them.
"""

from __future__ import annotations

import http.client
import os
from collections.abc import Iterable, Sequence
from datetime import timedelta
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.responses import Response

from orchestrator.adapters import api_socket
from orchestrator.domain import errors
from orchestrator.domain.pool.host import HostState
from orchestrator.domain.pool.refill import missing_slots
from orchestrator.domain.pool.silence import AgentCounts
from orchestrator.domain.sessions.session import SessionState
from orchestrator.entrypoints.api.answers import pool as answers
from orchestrator.entrypoints.api.context import Context, context_of
from orchestrator.entrypoints.api.operators import (
    machine_clock,
    process_counts,
    sandbox_metrics,
)
from orchestrator.entrypoints.liveness import hangs
from orchestrator.ports import LinkGauges
from orchestrator.services import storage
from orchestrator.services.agents import presence
from orchestrator.services.deps import Deps

router = APIRouter(tags=["health"])

_PROXY_S = 2.0
_HANG_SHOWN = timedelta(hours=1)


class _Metrics(Response):
    """For the documentation."""

    media_type = CONTENT_TYPE_LATEST


@router.get("/health")
async def health() -> answers.Health:
    """Answers as soon as this process serves requests. Needs no thread: whoever takes all of them
    doesn't make us look dead."""
    return {"status": "ok"}


@router.get(
    "/ready",
    response_model=answers.Readiness,
    responses={503: {"description": "Not ready: the body says why.", "model": answers.Readiness}},
)
async def ready(request: Request) -> Response:
    """Whether a new session could get its link. If not: 503, and the reasons. All who ask within
    about a second get the same answer."""
    return await context_of(request).shared_answer(_ready)


@router.get("/metrics", response_class=_Metrics)
async def metrics(request: Request) -> Response:
    """Pool and sessions, counted in the store at each scrape; the counts of each process of the
    API, and those of the process that serves agents and gateway. All who ask within about a second
    get the same answer."""
    return await context_of(request).shared_answer(_metrics)


@router.get(api_socket.COUNTS_PATH, include_in_schema=False)
async def own_metrics(request: Request) -> Response:
    """What this process counts itself. Its siblings ask for it, over its socket."""
    counts = generate_latest(context_of(request).api_metrics.registry)
    return Response(counts, media_type=CONTENT_TYPE_LATEST)


def _ready(context: Context) -> Response:
    results = checks(context)
    # Without a Claude key templates still work, so that check alone doesn't make us unready.
    is_ready = all(result["ok"] for name, result in results.items() if name != "claude")
    status = 200 if is_ready else 503
    return JSONResponse({"ready": is_ready, "checks": results}, status_code=status)


def _metrics(context: Context) -> Response:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_StoreCollector(context))
    registry.register(process_counts.OfAllProcesses(context))
    parts = (generate_latest(registry), context.deps.gateway.metrics())
    return Response(b"".join(parts), media_type=CONTENT_TYPE_LATEST)


def checks(context: Context) -> dict[str, answers.Check]:
    """Everything that a session needs: whether it works, and what is wrong if it doesn't."""
    try:
        context.deps.store.ping()
        return {"database": {"ok": True, "detail": "answers"}, **_other_checks(context)}
    except errors.Temporary as error:  # a database may answer some queries and fail in others
        return {"database": {"ok": False, "detail": str(error)}}


def _other_checks(context: Context) -> dict[str, answers.Check]:
    """Raises errors.Temporary if the database fails."""
    deps = context.deps
    results: dict[str, answers.Check] = {}
    try:
        deps.queue.depth()
        results["redis"] = {"ok": True, "detail": "answers"}
    except errors.QueueUnavailable as error:
        results["redis"] = {"ok": False, "detail": str(error)}
    results["storage"] = _storage(context)
    results["docker"] = _docker(context)
    results["proxy"] = _proxy(context)
    results["daemon"] = _daemon(context)
    results["agents"] = _agents(context)
    results["processes"] = _processes(context)
    results["claude"] = _claude(context)
    results["clock"] = machine_clock.check(deps)
    return results


def _claude(context: Context) -> answers.Check:
    """Whether a provider is configured, and whether providers accept our keys."""
    if not context.settings.llm.can_generate:
        return {"ok": False, "detail": "no ANTHROPIC_API_KEY: templates only"}
    if context.settings.llm.demo:
        return {"ok": True, "detail": "demo: answers are canned"}
    fault = context.settings.llm.find_proxy_fault(os.environ)
    if fault:
        return {"ok": False, "detail": fault, "proxy": True}
    refused = context.deps.gateway.refused_keys()
    if refused:
        return {"ok": False, "detail": "; ".join(refused.values()), "settings": sorted(refused)}
    return {"ok": True, "detail": "a key is configured"}


def _storage(context: Context) -> answers.Check:
    """Whether the disk of the state folder has room for new sessions."""
    shortage = storage.find_shortage(context.deps)
    if shortage:
        return {"ok": False, "detail": shortage}
    return {"ok": True, "detail": f"{context.deps.free_storage() // 1024**2} MiB free"}


def _docker(context: Context) -> answers.Check:
    """From the daemon's latest look at the hosts: this process never talks to Docker."""
    hosts = context.deps.store.hosts.list()
    if any(host.state is HostState.UP for host in hosts):
        return {"ok": True, "detail": f"{len(hosts)} host(s), at least one up"}
    reasons = "; ".join(f"{host.name}: {host.reason or host.state}" for host in hosts)
    return {"ok": False, "detail": reasons or "no host has joined yet"}


def _proxy(context: Context) -> answers.Check:
    """Whether a request through the proxy reaches a process of the API. It goes over the control
    port, on which nobody is refused for what others ask."""
    port = context.settings.addresses.control_port
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_PROXY_S)
    try:
        connection.request("GET", "/health")
        is_ok = connection.getresponse().status == 200
    except (OSError, http.client.HTTPException) as error:
        return {"ok": False, "detail": f"port {port}: {error}"}
    finally:
        connection.close()
    return {"ok": is_ok, "detail": "answers" if is_ok else "answers, but not for us"}


def _daemon(context: Context) -> answers.Check:
    """Whether a daemon holds the lease that makes it the leader."""
    now = context.deps.clock.now()
    holder = context.deps.store.leases.holder("daemon", now)
    if holder is None:
        return {"ok": False, "detail": "no daemon leads; it is starting, or it is down"}
    return {"ok": True, "detail": f"the daemon on {holder.partition(':')[0]} leads"}


def _agents(context: Context) -> answers.Check:
    """Whether agents can be heard: their listener answers, and not too many of them are silent."""
    if context.deps.listener.process() is None:
        return {"ok": False, "detail": "the agents' listener doesn't answer"}
    silence = presence.silence_now(context.deps)
    if silence.everywhere:
        return {"ok": False, "detail": _describe_silence(silence.total)}
    return {"ok": True, "detail": f"{silence.total.agents} agent(s), heard"}


def _processes(context: Context) -> answers.Check:
    """What hung lately. That is no reason not to be ready: it was started again at once."""
    clock = context.deps.clock
    now = clock.now() + clock.offset()  # the supervisor writes down what the machine's clock shows
    recent = [
        f"{name} hung at {hang.at} and was started again: {hang.reason}"
        for name, hang in hangs.read(context.settings.places.state_dir).items()
        if now - hang.at < _HANG_SHOWN
    ]
    return {"ok": True, "detail": "; ".join(recent) or "none hung within the last hour"}


def silence_warnings(deps: Deps) -> Sequence[str]:
    """For operators: where many agents are silent together."""
    silence = presence.silence_now(deps)
    if silence.everywhere:
        return [_describe_silence(silence.total)]
    return [
        f"{host.name}: many of its agents are silent; nothing is removed there until they are heard"
        for host in deps.store.hosts.list()
        if host.id in silence.hosts
    ]


def _describe_silence(total: AgentCounts) -> str:
    return (
        f"{total.overdue} of {total.agents} agents are silent together, so we probably don't hear"
        " them; no sandbox is removed for its silence until they are heard"
    )


class _StoreCollector:
    """Gauges that are read from the store at each scrape."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def collect(self) -> Iterable[Metric]:
        deps = self._context.deps
        yield from _session_metrics(deps)
        yield from sandbox_metrics.collect(deps)
        yield from _host_metrics(deps)
        yield from _agent_metrics(deps)
        yield from _slot_metrics(deps)
        yield from _link_metrics(deps.board.read())
        yield GaugeMetricFamily(
            "spawn_warm_target", "Warm sandboxes wanted", value=deps.policy.warm_target
        )
        yield from _queue_metrics(deps)
        yield from _storage_metrics(deps)
        yield from _hang_metrics(self._context.settings.places.state_dir)
        yield from machine_clock.metrics(deps)


def _session_metrics(deps: Deps) -> Iterable[Metric]:
    sessions = GaugeMetricFamily("spawn_sessions", "Sessions by state", labels=["state"])
    counts = deps.store.sessions.counts()
    for state in SessionState:
        sessions.add_metric([state], counts.get(state, 0))
    yield sessions


def _host_metrics(deps: Deps) -> Iterable[Metric]:
    slots = GaugeMetricFamily("spawn_host_slots", "Slots", labels=["host", "kind"])
    up = GaugeMetricFamily("spawn_host_up", "Whether a host is UP", labels=["host"])
    states = GaugeMetricFamily(
        "spawn_host_state", "1 for the state that a host is in", labels=["host", "state"]
    )
    ports = GaugeMetricFamily(
        "spawn_host_ports_set_aside",
        "Ports that no sandbox gets now, because other programs hold them",
        labels=["host"],
    )
    now = deps.clock.now()
    for load in deps.store.hosts.loads():
        host = load.host
        ports.add_metric([host.name], len(host.ports_set_aside(now)))
        slots.add_metric([host.name, "total"], host.slots)
        slots.add_metric([host.name, "used"], load.used)
        up.add_metric([host.name], float(host.state is HostState.UP))
        for state in HostState:
            states.add_metric([host.name, state], float(host.state is state))
    yield slots
    yield up
    yield states
    yield ports


def _agent_metrics(deps: Deps) -> Iterable[Metric]:
    silence = presence.silence_now(deps)
    yield GaugeMetricFamily(
        "spawn_agents", "Agents that we should hear", value=silence.total.agents
    )
    yield GaugeMetricFamily(
        "spawn_agents_overdue",
        "Agents that we haven't heard for 40 s",
        value=silence.total.overdue,
    )
    yield GaugeMetricFamily(
        "spawn_agents_silent_together",
        "1 if so many are silent, on a host or everywhere, that no sandbox is removed for it",
        value=float(bool(silence)),
    )


def _slot_metrics(deps: Deps) -> Iterable[Metric]:
    totals = deps.store.hosts.totals()
    yield GaugeMetricFamily(
        "spawn_free_slots", "Free slots of hosts that take placements", value=totals.free_slots
    )
    yield GaugeMetricFamily(
        "spawn_free_slots_short",
        "Slots that the pool lacks to keep SPAWN_FREE_SLOTS free",
        value=missing_slots(totals, deps.policy.free_slots),
    )


def _link_metrics(links: Sequence[LinkGauges]) -> Iterable[Metric]:
    """The state of the SSH links, as the daemon posted it."""
    gauges = (
        ("spawn_link_up", "Whether the SSH link is up", lambda link: float(link.up)),
        ("spawn_link_docker_up", "Whether Docker answers over it", lambda link: link.docker),
        ("spawn_link_channels", "Open channels of the link", lambda link: link.channels),
        ("spawn_link_rtt_seconds", "Latest round trip time", lambda link: link.rtt_s),
        (
            "spawn_link_reconnects",
            "Reconnects since the daemon started",
            lambda link: link.reconnects,
        ),
    )
    for name, help_text, read in gauges:
        family = GaugeMetricFamily(name, help_text, labels=["host"])
        for link in links:
            value = read(link)
            if value is not None:
                family.add_metric([link.host], float(value))
        yield family
    refusals = CounterMetricFamily(
        "spawn_link_refusals",
        "Connections of sandboxes that the link refused since the daemon started",
        labels=["host", "reason"],
    )
    for link in links:
        for reason, count in link.refusals.items():
            refusals.add_metric([link.host, reason], count)
    yield refusals


def _storage_metrics(deps: Deps) -> Iterable[Metric]:
    try:
        free_bytes = deps.free_storage()
    except errors.StorageUnavailable:
        return
    yield GaugeMetricFamily(
        "spawn_storage_free_bytes", "Free bytes on the disk of the state folder", value=free_bytes
    )
    yield GaugeMetricFamily(
        "spawn_storage_low",
        "Whether that disk is too full to take in anything new",
        value=float(free_bytes < deps.policy.storage_floor_bytes),
    )


def _hang_metrics(state_dir: Path) -> Iterable[Metric]:
    family = CounterMetricFamily(
        "spawn_process_hangs", "Processes of ours that hung and were ended", labels=["process"]
    )
    for name, hang in hangs.read(state_dir).items():
        family.add_metric([name], hang.count)
    yield family


def _queue_metrics(deps: Deps) -> Iterable[Metric]:
    try:
        depths = deps.queue.depth()
    except errors.QueueUnavailable:
        return
    queues = GaugeMetricFamily("spawn_queue_depth", "Nudges waiting", labels=["queue"])
    for queue, depth in depths.items():
        queues.add_metric([queue], depth)
    yield queues
