"""The public app: page, API, docs. server.py serves it behind the proxy, which has their files.

`/api/status/{id}` gets more requests than all other paths together. Its route therefore stands in
front of FastAPI: routing and dependencies there cost more than the answer itself.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

import orchestrator
from orchestrator.entrypoints.api.access_log import AccessLog
from orchestrator.entrypoints.api.context import Context
from orchestrator.entrypoints.api.errors import documented, handlers
from orchestrator.entrypoints.api.guard import Guard
from orchestrator.entrypoints.api.methods import HeadAsGet
from orchestrator.entrypoints.api.operators import admin, health, hosts
from orchestrator.entrypoints.api.people import changes, downloads, sessions, usage

WEB = Path(__file__).parent / "web"


def build(context: Context) -> Starlette:
    """The ASGI app behind the proxy."""
    app = Starlette(
        routes=[
            Route(sessions.STATUS_PATH, sessions.status),
            Mount("/", HeadAsGet(_api(context))),
        ],
        middleware=[
            Middleware(
                AccessLog,
                logs=context.settings.processes.access_log,
                processes=context.settings.processes.api_processes,
            ),
            Middleware(Guard, hosts=context.settings.addresses.page_hosts),
        ],
        exception_handlers=handlers.HANDLERS,
    )
    app.state.context = context
    return app


class _Api(FastAPI):
    """Its OpenAPI document has the errors, too."""

    @functools.cached_property
    def document(self) -> bytes:
        """The OpenAPI document as it is sent. It is large, and anybody may ask for it."""
        return bytes(JSONResponse(self.openapi()).body)

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            catalog = self.state.context.deps.catalog.list()
            documented.describe(super().openapi(), [template.name for template in catalog])
        return super().openapi()


def _api(context: Context) -> FastAPI:
    app = _Api(
        title="SpawnAI",
        version=orchestrator.__version__,
        description="From a prompt to the link of a running web app.",
        docs_url=None,  # FastAPI's own page loads its scripts from a CDN
        redoc_url=None,
        openapi_url=None,  # FastAPI's own makes the bytes anew for each request
    )
    app.state.context = context
    handlers.install(app)
    app.include_router(sessions.router)
    app.include_router(downloads.router)
    app.include_router(changes.router)
    app.include_router(admin.router)
    app.include_router(hosts.router)
    app.include_router(health.router)
    app.include_router(usage.router)
    app.include_router(usage.admin_router)
    page = _demo_page if context.settings.llm.demo else _page
    app.add_api_route("/", page, include_in_schema=False)
    app.add_api_route("/openapi.json", _document, include_in_schema=False)
    app.add_api_route("/docs", _docs, include_in_schema=False)
    return app


async def _page() -> Response:
    return FileResponse(WEB / "index.html", headers={"Cache-Control": "no-cache"})


async def _document(request: Request) -> Response:
    return Response(request.app.document, media_type="application/json")


async def _docs() -> Response:
    return FileResponse(WEB / "docs.html", headers={"Cache-Control": "no-cache"})


def _demo_page() -> Response:
    """The page, with the notice that answers are canned."""
    page = (WEB / "index.html").read_text("utf-8")
    page_with_notice = page.replace(
        '<p id="demo" class="notice warn" hidden>', '<p class="notice warn">'
    )
    return HTMLResponse(page_with_notice, headers={"Cache-Control": "no-cache"})
