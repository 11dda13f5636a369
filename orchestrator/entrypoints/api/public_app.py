"""The public app: page, API, docs. Served behind the proxy."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from starlette.responses import Response

import orchestrator
from orchestrator.entrypoints.api import admin, health, problems, sessions
from orchestrator.entrypoints.api.context import Context
from orchestrator.entrypoints.api.guard import Guard

WEB = Path(__file__).parent / "web"


def build(context: Context) -> FastAPI:
    """The ASGI app behind the proxy."""
    app = FastAPI(
        title="SpawnAI",
        version=orchestrator.__version__,
        description="From a prompt to the link of a running web app.",
        redoc_url=None,
    )
    app.state.context = context
    problems.install(app)
    app.include_router(sessions.router)
    app.include_router(admin.router)
    app.include_router(health.router)
    app.add_api_route("/", _page, include_in_schema=False)
    app.mount("/static", StaticFiles(directory=WEB), name="static")
    app.add_middleware(Guard)
    return app


def _page() -> Response:
    return FileResponse(WEB / "index.html", headers={"Cache-Control": "no-cache"})
