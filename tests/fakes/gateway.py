"""What the gateway's process tells: ports.GatewayStatus, in memory."""

from __future__ import annotations

from collections.abc import Mapping


class GatewayStatusInMemory:
    """Tells what a test sets."""

    def __init__(self) -> None:
        self.text = b""
        self.refused: dict[str, str] = {}

    def metrics(self) -> bytes:
        return self.text

    def refused_keys(self) -> Mapping[str, str]:
        return self.refused
