"""ports.Listener and ports.GatewayStatus over UNIX sockets of this machine: the agent socket, and a
private one of the same process. The daemon and the API use them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.adapters import unix_http

HEALTH_PATH = "/agent/health"
METRICS_PATH = "/metrics"
REFUSED_KEYS_PATH = "/refused-keys"


class AgentSocket:
    """Makes requests as an agent does: a new connection for each."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def process(self) -> str | None:
        """As the port says. The answer has to come within two seconds."""
        process = _object(unix_http.get(self._path, HEALTH_PATH)).get("process")
        return process if isinstance(process, str) else None


class GatewaySocket:
    """Asks the gateway's process about itself."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def metrics(self) -> bytes:
        return unix_http.get(self._path, METRICS_PATH)

    def refused_keys(self) -> Mapping[str, str]:
        refused = _object(unix_http.get(self._path, REFUSED_KEYS_PATH))
        return {setting: str(reason) for setting, reason in refused.items()}


def _object(raw: bytes) -> dict[str, Any]:
    try:
        value = json.loads(raw)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
