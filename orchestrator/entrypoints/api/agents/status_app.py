"""What the process `agents` tells the processes of the API about itself.

/metrics and /ready of the public app show it. Its socket can't be reached from sandboxes.
"""

from __future__ import annotations

from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from orchestrator.adapters.agent_socket import METRICS_PATH, REFUSED_KEYS_PATH
from orchestrator.entrypoints.api.context import Context, context_of


def build(context: Context) -> Starlette:
    """The ASGI app of the gateway's socket."""
    app = Starlette(
        routes=[Route(METRICS_PATH, metrics), Route(REFUSED_KEYS_PATH, refused_keys)],
    )
    app.state.context = context
    return app


async def metrics(request: Request) -> Response:
    """The metrics of agents and gateway."""
    registry = context_of(request).metrics.registry
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


async def refused_keys(request: Request) -> Response:
    """Settings whose key a provider refused, with its reason."""
    return JSONResponse(dict(context_of(request).metrics.refused_keys))
