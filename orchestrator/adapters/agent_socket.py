"""ports.Listener over the agent socket of this machine. The daemon and the API use it."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path

HEALTH_PATH = "/agent/health"
_TIMEOUT_S = 2.0


class AgentSocket:
    """Makes requests as an agent does: a new connection for each."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def process(self) -> str | None:
        """As the port says. The answer has to come within two seconds."""
        connection = _UnixConnection(self._path)
        try:
            connection.request("GET", HEALTH_PATH, headers={"Host": "home"})
            response = connection.getresponse()
            answer = json.loads(response.read())
        except (OSError, ValueError, http.client.HTTPException):
            return None
        finally:
            connection.close()
        process = answer.get("process") if isinstance(answer, dict) else None
        return process if response.status == 200 and isinstance(process, str) else None


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a UNIX socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("home", timeout=_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_TIMEOUT_S)
        self.sock.connect(str(self._path))
