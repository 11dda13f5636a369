"""ports.Listener and ports.GatewayStatus over UNIX sockets of this machine: the agent socket, and a
private one of the same process. The daemon and the API use them."""

from __future__ import annotations

import http.client
import json
import socket
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HEALTH_PATH = "/agent/health"
METRICS_PATH = "/metrics"
REFUSED_KEYS_PATH = "/refused-keys"
_TIMEOUT_S = 2
_TIMEVAL = struct.Struct("@ll")  # seconds and microseconds


class AgentSocket:
    """Makes requests as an agent does: a new connection for each."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def process(self) -> str | None:
        """As the port says. The answer has to come within two seconds."""
        process = _object(_get(self._path, HEALTH_PATH)).get("process")
        return process if isinstance(process, str) else None


class GatewaySocket:
    """Asks the gateway's process about itself."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def metrics(self) -> bytes:
        return _get(self._path, METRICS_PATH)

    def refused_keys(self) -> Mapping[str, str]:
        refused = _object(_get(self._path, REFUSED_KEYS_PATH))
        return {setting: str(reason) for setting, reason in refused.items()}


def _get(path: Path, target: str) -> bytes:
    """The body of a good answer. Empty if there is none."""
    connection = _UnixConnection(path)
    try:
        connection.request("GET", target, headers={"Host": "home", "Connection": "close"})
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException):
        return b""
    finally:
        connection.close()
    return body if response.status == 200 else b""


def _object(raw: bytes) -> dict[str, Any]:
    try:
        value = json.loads(raw)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a UNIX socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("home", timeout=_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        # With a timeout of Python's own, a full queue of the listener is an error at once.
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEVAL.pack(_TIMEOUT_S, 0))
        self.sock.connect(str(self._path))
        self.sock.settimeout(_TIMEOUT_S)
