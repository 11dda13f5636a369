"""What the endpoints of one api process share."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from starlette.requests import HTTPConnection

from orchestrator.config import Settings
from orchestrator.entrypoints.api.hub import Hub
from orchestrator.services.deps import Deps


@dataclass(frozen=True, kw_only=True)
class Context:
    """Made once by server.py; reached through app.state."""

    settings: Settings
    deps: Deps
    hub: Hub
    started_at: datetime


def context_of(request: HTTPConnection) -> Context:
    app: Any = request.app
    return cast(Context, app.state.context)
