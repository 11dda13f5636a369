"""Wires adapters to ports. Called by the entry points; no other module knows all adapters."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Sequence
from decimal import Decimal

from orchestrator import config, ports
from orchestrator.adapters import sql_store
from orchestrator.adapters.agent_socket import AgentSocket, GatewaySocket
from orchestrator.adapters.docker.flags import SandboxLimits
from orchestrator.adapters.events.sockets import SocketEvents
from orchestrator.adapters.files.bundle_store import FolderBundles
from orchestrator.adapters.files.catalog import FolderCatalog
from orchestrator.adapters.files.link_board import FileLinkBoard
from orchestrator.adapters.files.reserve import ReserveFile
from orchestrator.adapters.files.state_folder import StateFolder
from orchestrator.adapters.proxy import route_links
from orchestrator.adapters.proxy.client_limits import ClientLimits
from orchestrator.adapters.proxy.http_probe import HttpProbe
from orchestrator.adapters.proxy.nginx import NginxSettings
from orchestrator.adapters.proxy.port_looks import TcpPortLooks
from orchestrator.adapters.redis.rq_queue import RqNudgeQueue
from orchestrator.adapters.system_clock import SystemClock
from orchestrator.config import Settings
from orchestrator.domain import errors
from orchestrator.domain.llm import pricing
from orchestrator.domain.llm.budgets import Budgets, Spend
from orchestrator.domain.people.tokens import Tokens
from orchestrator.domain.pool.cpu_limits import CpuLimits
from orchestrator.domain.pool.host import Host
from orchestrator.domain.sessions.bundles import StorageLimits
from orchestrator.domain.sessions.planner import Deadlines
from orchestrator.services.deps import Deps, Policy

_MEMORY_WITH_INTERPRETERS_MB = 256  # of a sandbox
_PRICES = config.PROJECT_ROOT / "orchestrator" / "prices.toml"


class NoEngines:
    """The engines of processes that never talk to Docker: the API, workers and spawnctl."""

    def for_host(self, host: Host) -> ports.Engine:
        raise errors.EngineUnavailable(f"this process does not talk to {host.name}'s Docker")

    def keep(self, hosts: Sequence[Host]) -> None:
        """Nothing to forget."""

    def close(self) -> None:
        """Nothing to close."""


def build(settings: Settings, engines: ports.Engines) -> Deps:
    """The Deps of one process."""
    state = StateFolder(settings.places.state_dir)
    installation = state.instance()
    clock = make_clock(settings)
    events = SocketEvents(settings.places.events_folder)
    return Deps(
        store=open_store(settings),
        engines=engines,
        queue=RqNudgeQueue(settings.places.effective_redis_url, installation, events.session_due),
        events=events,
        # Over the control listener, which counts nobody: whoever takes all that one address may
        # have, and comes from the address of this machine, must not make apps look broken.
        probe=HttpProbe(
            route_links.endpoint("127.0.0.1", settings.addresses.control_port),
            settings.addresses.apps_domain,
            settings.addresses.http_port,
            public_scheme="https" if settings.people.cookie_secure else "http",
        ),
        port_looks=TcpPortLooks(),
        bundles=FolderBundles(
            settings.places.state_dir / "bundles", lambda: clock.now().timestamp()
        ),
        catalog=read_catalog(),
        board=FileLinkBoard(settings.places.link_board, clock),
        listener=AgentSocket(settings.places.agent_socket),
        gateway=GatewaySocket(settings.places.gateway_socket),
        clock=clock,
        tokens=Tokens(state.secret()),
        image=lambda: settings.pool.runtime_image or state.image(),
        spread=random.random,
        policy=_policy(settings, installation),
        free_storage=state.free_bytes,
        reserve=ReserveFile(settings.places.state_dir / "reserve"),
    )


@functools.cache
def read_catalog() -> ports.Catalog:
    """The built-in templates. The supervisor reads them before it forks, for all processes.

    Raises errors.InvalidInput for a template that would be refused as a bundle.
    """
    return FolderCatalog(config.PROJECT_ROOT / "orchestrator" / "catalog")


def make_clock(settings: Settings) -> SystemClock:
    """The application's time. All processes of this machine share it by a file."""
    return SystemClock(settings.places.state_dir / "clock")


def open_store(
    settings: Settings, check_term: Callable[[], None] = lambda: None
) -> sql_store.SqlStore:
    """The store of one process. `check_term` is a leader's: it may write during its term alone."""
    return sql_store.open_store(
        settings.places.effective_database_url,
        port_range=settings.pool.port_range,
        log_lines=settings.sessions.log_lines,
        check_term=check_term,
    )


def _policy(settings: Settings, instance: str) -> Policy:
    return Policy(
        deadlines=Deadlines(
            provisioning_s=settings.sessions.provisioning_timeout_s,
            generating_s=settings.sessions.generating_timeout_s,
            deploying_s=settings.sessions.deploying_timeout_s,
        ),
        warm_target=settings.pool.warm_target,
        warm_interpreters=_keeps_interpreters(settings),
        free_slots=settings.pool.free_slots,
        cpus=CpuLimits(
            share=settings.sandbox.sandbox_cpus, start=settings.sandbox.sandbox_start_cpus
        ),
        disk_floor_bytes=settings.pool.host_disk_floor_mb * 1024**2,
        memory_floor_bytes=settings.pool.host_memory_floor_mb * 1024**2,
        storage_floor_bytes=settings.places.disk_floor_mb * 1024**2,
        agent_folder_of_hosts=agent_folder_of_hosts(instance),
        ttl_default_s=settings.sessions.ttl_default_s,
        queue_max=settings.sessions.queue_max,
        ended_per_user=settings.sessions.ended_per_user,
        ended_total=settings.sessions.ended_total,
        bundle_retention_s=settings.sessions.bundle_retention_days * 86400,
        storage=_storage_limits(settings),
        audit_retention_s=settings.people.audit_retention_days * 86400,
        model=settings.llm.model,
        max_tokens=settings.llm.max_tokens,
        provider_silence_s=settings.llm.provider_silence_s,
        can_generate=settings.llm.can_generate,
        models=settings.llm.allowed_models,
        budgets=_budgets(settings),
        prices=pricing.parse(_PRICES.read_text("utf-8")),
        share_between_users=settings.llm.share_between_users,
        upload_max_bytes=settings.sandbox.upload_max_mb * 1024**2,
        start_timeout_s=settings.sessions.deploying_timeout_s * 0.75,
    )


def agent_folder_of_hosts(instance: str) -> str:
    """The folder of the agent socket on hosts that are reached by SSH."""
    return f"/run/spawnai-{instance}"


def _keeps_interpreters(settings: Settings) -> bool:
    """Only beside an app that has enough memory all the same."""
    is_large = settings.sandbox.sandbox_memory_mb >= _MEMORY_WITH_INTERPRETERS_MB
    return settings.pool.warm_interpreters and is_large


def _storage_limits(settings: Settings) -> StorageLimits:
    storage = settings.storage
    return StorageLimits(
        versions=storage.storage_versions,
        session_bytes=storage.storage_session_mb * 1024**2,
        user_bytes=storage.storage_user_mb * 1024**2,
        total_bytes=storage.storage_total_mb * 1024**2,
    )


def _budgets(settings: Settings) -> Budgets:
    def spend(tokens: int, usd: Decimal) -> Spend:
        return Spend(tokens=tokens, micro_usd=int(usd * pricing.MICRO))

    return Budgets(
        session=spend(settings.llm.budget_session_tokens, settings.llm.budget_session_usd),
        user_day=spend(settings.llm.budget_user_tokens, settings.llm.budget_user_usd),
        day=spend(settings.llm.budget_day_tokens, settings.llm.budget_day_usd),
    )


def sandbox_limits(settings: Settings) -> SandboxLimits:
    """The limits of this installation's sandboxes."""
    return SandboxLimits(
        instance=StateFolder(settings.places.state_dir).instance(),
        memory_bytes=settings.sandbox.sandbox_memory_mb * 1024**2,
        pids=settings.sandbox.sandbox_pids,
        runtime=settings.sandbox.sandbox_runtime or None,
    )


def nginx_settings(settings: Settings) -> NginxSettings:
    """The settings of the embedded proxy."""
    return NginxSettings(
        folder=settings.places.state_dir / "nginx",
        listen_address=settings.addresses.http_address,
        listen_port=settings.addresses.http_port,
        control_port=settings.addresses.control_port,
        page_hosts=settings.addresses.page_hosts,
        apps_domain=settings.addresses.apps_domain,
        api_addresses=tuple(
            f"unix:{settings.places.api_socket(number)}"
            for number in range(1, settings.processes.api_processes + 1)
        ),
        templates=config.PROJECT_ROOT / "proxy" / "nginx",
        pages=config.PROJECT_ROOT / "proxy" / "pages",
        page_files=config.PROJECT_ROOT / "orchestrator" / "entrypoints" / "api" / "web",
        apps_log=settings.places.state_dir / "log" / "apps.log",
        logged_requests=settings.processes.access_log,
        trusted_proxies=settings.addresses.front_proxies,
        upload_max_bytes=settings.sandbox.upload_max_mb * 1024**2,
        limits=ClientLimits(
            requests_per_address=settings.people.requests_per_address,
            starts_per_address=settings.people.starts_per_address,
            polls_per_address=settings.people.polls_per_address,
            transfers_per_address=settings.people.transfers_per_address,
            reads_per_address=settings.people.reads_per_address,
            connections_per_address=settings.people.connections_per_address,
            app_connections_per_address=settings.people.app_connections_per_address,
            connections_per_app=settings.people.connections_per_app,
        ),
    )
