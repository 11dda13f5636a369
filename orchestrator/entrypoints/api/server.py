"""The spawn-api process: serves both apps in one event loop. The supervisor starts it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Generator

import redis.asyncio
import uvicorn
import uvloop

from orchestrator import bootstrap, config, observability
from orchestrator.adapters.files.state_folder import StateFolder
from orchestrator.config import Settings
from orchestrator.domain import errors
from orchestrator.entrypoints.api import public_app
from orchestrator.entrypoints.api.agents import app as agent_app
from orchestrator.entrypoints.api.context import Context
from orchestrator.entrypoints.api.gateway.app import Gateway
from orchestrator.entrypoints.api.hub import Hub
from orchestrator.services.deps import Deps
from orchestrator.services.people import keys
from orchestrator.slim import structlog

_DRAIN_S = 5

log = structlog.get_logger()


def main() -> None:
    """Serve until SIGTERM."""
    settings = config.load()
    observability.configure(settings.processes.log_level, "api")
    deps = bootstrap.build(settings, bootstrap.NoEngines())
    state = StateFolder(settings.places.state_dir)
    _ensure_operator(deps, state)
    for template in deps.catalog.list():
        # Also among the bundles: a running app must be recoverable after its template changes.
        deps.bundles.put(deps.catalog.data(template.digest) or b"")
    settings.places.agent_folder.mkdir(mode=0o755, exist_ok=True)
    settings.places.agent_folder.chmod(0o755)
    hub = Hub(redis.asyncio.Redis.from_url(settings.places.effective_redis_url))
    context = Context(settings=settings, deps=deps, hub=hub, started_at=deps.clock.now())
    uvloop.run(_serve(context, settings))
    deps.store.close()


def _ensure_operator(deps: Deps, state: StateFolder) -> None:
    try:
        keys.ensure_operator(deps, state.operator_key(keys.make_secret()))
    except errors.Unauthorized as error:
        log.warning("operator_key_replaced", reason=str(error))
        state.delete_operator_key()
        keys.ensure_operator(deps, state.operator_key(keys.make_secret()))


async def _serve(context: Context, settings: Settings) -> None:
    gateway = Gateway(context)
    servers = [
        _Server(
            _config(public_app.build(context), host="127.0.0.1", port=settings.addresses.api_port)
        ),
        _Server(_config(agent_app.build(context, gateway), uds=str(settings.places.agent_socket))),
    ]
    loop = asyncio.get_running_loop()

    def stop() -> None:
        # 1. Long polls first: servers wait for open requests, and a long poll takes half a minute.
        context.hub.close()
        # 2. Then both servers. They finish the requests in progress.
        for server in servers:
            server.should_exit = True

    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stop)
    tasks = [
        asyncio.create_task(context.hub.run(), name="hub"),
        asyncio.create_task(gateway.run(), name="gateway"),
    ]
    for task in tasks:
        task.add_done_callback(lambda task: None if task.cancelled() else stop())
    try:
        await asyncio.gather(*(server.serve() for server in servers))
    finally:
        # 3. Last, what the servers used.
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await gateway.close()


class _Server(uvicorn.Server):
    """Handles no signals: two servers in one process would take them from each other."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


def _config(app: object, **address: object) -> uvicorn.Config:
    return uvicorn.Config(
        app,  # type: ignore[arg-type]  # both are ASGI apps; uvicorn's alias is narrower
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=75,  # longer than the proxy keeps its connections
        timeout_graceful_shutdown=_DRAIN_S,
        lifespan="off",
        proxy_headers=True,
        **address,  # type: ignore[arg-type]  # host and port, or uds
    )


if __name__ == "__main__":
    main()
