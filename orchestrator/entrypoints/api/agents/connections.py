"""The connections of agents: how many a container may have, and the deadlines of head and body.

agents/server.py gives it to uvicorn, which has a time limit only between two requests.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from orchestrator.entrypoints.api.agents.peers import Peers
from orchestrator.entrypoints.api.gateway.metrics import GatewayMetrics

_HEAD_MAX_BYTES = 64 * 1024
KEEP_ALIVE_S = 5  # between two requests; agents make a connection for each


@dataclass(frozen=True, kw_only=True)
class Deadlines:
    """How long a connection may take for each part of a request, in seconds."""

    head_s: float = 5.0  # from the connection, or from the request's first byte
    body_s: float = 60.0  # 20 MiB at 350 KB/s
    refused_s: float = 5.0  # to send the rest of a body that was refused
    unread_s: float = 60.0  # while the other end takes nothing of an answer


@dataclass(kw_only=True)
class Connections:
    """All connections of the agent socket."""

    metrics: GatewayMetrics
    deadlines: Deadlines = field(default_factory=Deadlines)
    per_container: int = 32  # an agent and its generator need three
    peers: Peers = field(default_factory=Peers)
    _open: Counter[str] = field(default_factory=Counter)

    def protocol(self) -> Callable[..., asyncio.Protocol]:
        """What uvicorn calls for each new connection."""

        def make(**options: Any) -> asyncio.Protocol:
            return AgentConnection(self, **options)

        return make

    def enter(self, container: str | None) -> bool:
        """Count a connection. False, and nothing is counted, if its container has too many."""
        if container is not None:
            if self._open[container] >= self.per_container:
                self.metrics.agent_refusals.labels("connections").inc()
                return False
            self._open[container] += 1
        self.metrics.agent_connections.inc()
        return True

    def leave(self, container: str | None) -> None:
        """Count a connection that `enter` counted as closed."""
        self.metrics.agent_connections.dec()
        if container is not None:
            self._open[container] -= 1
            if not self._open[container]:
                del self._open[container]


class AgentConnection(HttpToolsProtocol):
    """One connection. It is closed when it exceeds a deadline."""

    def __init__(self, connections: Connections, **options: Any) -> None:
        super().__init__(**options)
        self._connections = connections
        self._deadlines = connections.deadlines
        self._deadline: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._container: str | None = None
        self._is_counted = False
        self._has_head = False
        self._has_whole_request = True
        self._head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._container = self._connections.peers.container(transport.get_extra_info("socket"))
        self._is_counted = self._connections.enter(self._container)
        if self._is_counted:
            self._expect("slow_head", self._deadlines.head_s)
        else:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel()
        self.resume_writing()
        if self._is_counted:
            self._connections.leave(self._container)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._has_head:
            self._head_bytes += len(data)
            if self._head_bytes > _HEAD_MAX_BYTES:
                self._close("large_head")

    def send_400_response(self, msg: str) -> None:
        self._connections.metrics.agent_refusals.labels("malformed").inc()
        super().send_400_response(msg)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._has_whole_request = False
        self._expect("slow_head", self._deadlines.head_s)

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._has_head = True
        self._expect("slow_body", self._deadlines.body_s)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._has_whole_request = True
        self._has_head, self._head_bytes = False, 0
        self._cancel()
        if self.cycle.response_complete:
            self._expect("slow_head", self._deadlines.head_s)  # of the next request

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self._has_whole_request and not self.transport.is_closing():
            # Refused before its body was read. Closing now could destroy the answer on its way.
            self._unset_keepalive_if_required()
            self._expect("slow_body", self._deadlines.refused_s)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(self._deadlines.unread_s, self._close, "slow_reader")

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _expect(self, reason: str, within_s: float) -> None:
        """Close the connection for this reason unless `_cancel` comes in time."""
        self._cancel()
        self._deadline = self.loop.call_later(within_s, self._close, reason)

    def _cancel(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _close(self, reason: str) -> None:
        if not self.transport.is_closing():
            self._connections.metrics.agent_refusals.labels(reason).inc()
            self.transport.abort()
