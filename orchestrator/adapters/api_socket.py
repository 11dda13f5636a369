"""The sockets of the api processes: the supervisor checks them, and they ask each other."""

from __future__ import annotations

import json
from pathlib import Path

from orchestrator.adapters import unix_http

HEALTH_PATH = "/health"
COUNTS_PATH = "/metrics/process"
_HOST = "localhost"  # the public app answers under its names only


def is_healthy(path: Path) -> bool:
    """Whether the process on this socket serves."""
    raw = unix_http.get(path, HEALTH_PATH, _HOST)
    try:
        return bool(json.loads(raw) == {"status": "ok"})
    except ValueError:
        return False


def counts(path: Path) -> str:
    """What the process on this socket counts, in Prometheus' format. Empty if it doesn't answer."""
    return unix_http.get(path, COUNTS_PATH, _HOST).decode("utf-8", "replace")
