"""The process `agents`: serves agents and their gateway on the agent sockets.

The supervisor starts it. It is apart from page and API, so that visitors don't notice what
agents do to it. Only it gets the providers' keys.
"""

from __future__ import annotations

import functools
import logging

import uvloop

from orchestrator import bootstrap, config, observability
from orchestrator.config import Settings
from orchestrator.entrypoints.api import serving
from orchestrator.entrypoints.api.agents import app, status_app
from orchestrator.entrypoints.api.agents.connections import KEEP_ALIVE_S, Connections
from orchestrator.entrypoints.api.agents.limits import SenderLimits
from orchestrator.entrypoints.api.agents.lost_wake_ups import LostWakeUps
from orchestrator.entrypoints.api.agents.sandbox_sockets import SandboxSockets
from orchestrator.entrypoints.api.agents.walks import Walks
from orchestrator.entrypoints.api.context import Context
from orchestrator.entrypoints.api.gateway.app import Gateway
from orchestrator.entrypoints.api.hub import Hub
from orchestrator.loops.near_looks import taking_looks
from orchestrator.ports import topics


def main() -> None:
    """Serve until SIGTERM."""
    settings = config.load()
    observability.configure(settings.processes.log_level, "agents")
    deps, near_looks = taking_looks(bootstrap.build(settings, bootstrap.NoEngines()))
    places = settings.places
    places.agent_folder.mkdir(mode=0o755, exist_ok=True)
    places.agent_folder.chmod(0o755)  # sandboxes of the earlier layout may enter it
    places.gateway_socket.parent.mkdir(mode=0o700, exist_ok=True)
    places.gateway_socket.parent.chmod(0o700)
    hub = Hub(places.events_folder, "agents", [topics.INBOX, topics.ROUTES, topics.WALK])
    context = Context(settings=settings, deps=deps, hub=hub, started_at=deps.clock.now())
    uvloop.run(_serve(context, settings))
    near_looks.stop()
    deps.store.close()


def listen(
    context: Context,
    gateway: Gateway,
    connections: Connections,
    limits: SenderLimits | None = None,
    walks: Walks | None = None,
) -> tuple[serving.Server, SandboxSockets]:
    """What serves the shared socket, and the sockets of sandboxes. Neither is started yet."""
    server = serving.make_server(
        app.build(context, gateway, limits or SenderLimits(), walks),
        uds=str(context.settings.places.agent_socket),
        http=connections.shared,
        ws="none",
        timeout_keep_alive=KEEP_ALIVE_S,
    )
    return server, SandboxSockets(context, functools.partial(connections.of_sandbox, server))


async def _serve(context: Context, settings: Settings) -> None:
    gateway = Gateway(context)
    walks = Walks(context)
    agent_server, sockets = listen(context, gateway, Connections(context.metrics), walks=walks)
    # Its warnings are about nonsense that a sandbox sends, as often as it likes.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    status_server = serving.make_server(
        status_app.build(context), uds=str(settings.places.gateway_socket)
    )
    try:
        await serving.serve(
            [agent_server, status_server],
            context.hub,
            [gateway.run(), sockets.run(), walks.run(), LostWakeUps(context).run()],
        )
    finally:
        await gateway.close()


if __name__ == "__main__":
    main()
